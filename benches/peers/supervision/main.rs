//! What supervision costs, beside other actor systems in one run, so that ratios hold on any machine:
//! from a crash to the next life, restarts a second, messages, bytes of an idle actor, spawn rate.
//!
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench supervision`. Every system runs in a
//! process of its own, on one thread, and each next life is told to crash as soon as it begins. What
//! a system does not have is a dash: actix alone does not restart an actor that panicked. The peers
//! do less with a crash: no incident, no event, no backoff, no task that goes on elsewhere.

#![deny(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "../../caught.rs"]
mod caught;
mod measure;
#[path = "../../status.rs"]
mod status;
mod with_actix;
mod with_guild;
mod with_kameo;
mod with_ractor;

use std::process::Command;

use self::measure::Row;

/// Measures one system.
type Measure = fn() -> Row;

const SYSTEMS: [(&str, Measure); 5] = [
    ("guild", with_guild::measure),
    ("actix", with_actix::alone),
    ("actix, polls caught", with_actix::guarded),
    ("kameo", with_kameo::measure),
    ("ractor", with_ractor::measure),
];

/// Has the rest of the process measure one system.
const ONLY: &str = "--only";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let only = arguments.iter().position(|argument| argument == ONLY);
    if let Some(name) = only.and_then(|place| arguments.get(place + 1)) {
        let (_, measure) = SYSTEMS.iter().find(|(known, _)| known == name).expect("a known system");
        // The default hook prints every panic, which costs more than the restart.
        std::panic::set_hook(Box::new(|_| {}));
        println!("{}", measure().to_line());
        return;
    }
    println!("{}", Row::HEADER);
    let program = std::env::current_exe().expect("the path of this program");
    for (name, _) in SYSTEMS {
        let mut command = Command::new(&program);
        command.args(arguments.iter().skip(1)).args([ONLY, name]);
        let output = command.output().expect("a process of its own");
        let line = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        println!("{name:<20} {}", line.trim_end());
    }
}
