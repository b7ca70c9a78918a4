//! How fast the shared memory is: commits at each level of durability, reads, scans, mixed loads,
//! and how large a store is and how long it takes to open.
//!
//! `cargo bench --bench memory` prints tables; `cargo bench --bench memory -- reads` only those whose
//! name contains the word. Everything is measured in one run, and the disk is measured beside it
//! (a bare write with `fdatasync`, sled that syncs each commit), so that ratios hold on any machine.
//! Without `--bench` (in `cargo test`) everything runs once, small. Other engines are measured by
//! the crate in `benches/peers`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod clients;
mod commits;
mod reads;
mod size;
#[path = "../status.rs"]
mod status;
mod ycsb;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use guild_core::limits::Limits;
use guild_core::time::Timestamp;
use guild_memory::store::SledStore;
use guild_memory::{Commits, Durability, Memory, Transaction};
use tempfile::TempDir;

const NOW: Timestamp = Timestamp(1);
/// 256 bytes as JSON.
const VALUE: [u64; 32] = [1_234_567; 32];

/// A part of the tables: its name, and what prints it.
type Part = (&'static str, fn(Scale));

/// How much is done.
#[derive(Clone, Copy)]
struct Scale {
    is_measured: bool,
}

impl Scale {
    /// Returns the number when something is measured, and a small one when it is only tried out.
    fn of(self, number: usize) -> usize {
        if self.is_measured { number } else { (number / 1_000).clamp(2, 100) }
    }
}

/// A memory, and what wakes whoever waits for its committer.
struct Open {
    memory: Memory,
    acknowledged: Receiver<()>,
}

impl Open {
    fn in_ram() -> Self {
        Self::new(None, Durability::Memory)
    }

    fn on_disk(path: &Path, durability: Durability) -> Self {
        Self::new(Some(SledStore::open(path).unwrap()), durability)
    }

    fn new(store: Option<SledStore>, durability: Durability) -> Self {
        let (sender, acknowledged) = channel();
        let notify = Commits::OnThread(Box::new(move || sender.send(()).unwrap_or_default()));
        let store = store.map(|store| Box::new(store) as Box<_>);
        let (memory, _) = Memory::open(store, durability, Limits::default(), notify).unwrap();
        Self { memory, acknowledged }
    }

    /// Puts the value under so many keys.
    fn fill(&mut self, keys: usize) {
        for first in (0..keys).step_by(1_000) {
            let mut transaction = Transaction::begin(self.memory.snapshots());
            for number in first..keys.min(first + 1_000) {
                transaction.put(key(number), &VALUE).unwrap();
            }
            self.memory.transact(NOW, transaction.into_parts()).unwrap();
            self.memory.seal();
            self.memory.take_records();
            self.memory.barrier().unwrap();
        }
    }
}

fn key(number: usize) -> String {
    format!("keys/{number:08}")
}

/// Returns a directory on the disk of the project: `/tmp` may be in RAM.
fn folder() -> TempDir {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
    std::fs::create_dir_all(target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns the value below which so many percent of all lie.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1)).copied().unwrap_or_default()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale { is_measured: arguments.iter().any(|argument| argument == "--bench") };
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
