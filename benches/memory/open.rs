//! A memory that is measured, and how much is measured.
//!
//! The crate in `../peers` includes this file and `clients.rs`, so that both measure the same.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use guild_core::limits::Limits;
use guild_core::time::Timestamp;
use guild_memory::store::SledStore;
use guild_memory::{Commits, Durability, Memory, Transaction};
use tempfile::TempDir;

pub(crate) const NOW: Timestamp = Timestamp(1);
/// 256 bytes as JSON.
pub(crate) const VALUE: [u64; 32] = [1_234_567; 32];

/// How much is done.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    is_measured: bool,
}

impl Scale {
    pub(crate) fn of_arguments(arguments: &[String]) -> Self {
        Self { is_measured: arguments.iter().any(|argument| argument == "--bench") }
    }

    /// Returns the number when something is measured, and a small one when it is only tried out.
    pub(crate) fn of(self, number: usize) -> usize {
        if self.is_measured { number } else { (number / 1_000).clamp(2, 100) }
    }
}

/// A memory, and what wakes whoever waits for its committer.
pub(crate) struct Open {
    pub(crate) memory: Memory,
    pub(crate) acknowledged: Receiver<()>,
}

impl Open {
    pub(crate) fn in_ram() -> Self {
        Self::new(None, Durability::Memory)
    }

    pub(crate) fn on_disk(path: &Path, durability: Durability) -> Self {
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
    pub(crate) fn fill(&mut self, keys: usize) {
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

pub(crate) fn key(number: usize) -> String {
    format!("keys/{number:08}")
}

/// Returns a directory on the disk of the project: `/tmp` may be in RAM.
pub(crate) fn folder() -> TempDir {
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target");
    std::fs::create_dir_all(target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns the value below which so many percent of all lie.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get((sorted.len() * percent / 100).min(sorted.len() - 1)).copied().unwrap_or_default()
}
