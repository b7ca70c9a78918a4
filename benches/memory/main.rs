//! How fast the shared memory is: commits at each level of durability, reads, scans, mixed loads,
//! and how large a store is and how long it takes to open.
//!
//! `cargo bench --bench memory` prints tables; `cargo bench --bench memory -- reads` only those whose
//! name contains the word. Everything is measured in one run, and the disk is measured beside it
//! (a bare write with `fdatasync`), so that ratios hold on any machine.
//! Without `--bench` (in `cargo test`) everything runs once, small. Other engines are measured beside
//! it by the crate in `benches/peers`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod bare;
mod clients;
mod commits;
mod open;
mod reads;
mod size;
#[path = "../status.rs"]
mod status;
mod ycsb;

use self::open::Scale;

/// A part of the tables: its name, and what prints it.
type Part = (&'static str, fn(Scale));

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale::of_arguments(&arguments);
    if size::is_child() {
        return size::open_here();
    }
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let parts: [Part; 5] = [
        ("commits", commits::measure),
        ("reads", reads::measure),
        ("scans", reads::measure_scans),
        ("ycsb", ycsb::measure),
        ("size", size::measure),
    ];
    for (name, measure) in parts {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            println!("\n## {name}\n");
            measure(scale);
        }
    }
}
