//! How long a large store takes to open, in a process of its own, and how large it becomes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use guild_memory::{Durability, Transaction, reader};

use super::open::{NOW, Open, Scale, VALUE, folder, key};
use super::status;

/// Names the store that this process opens.
const STORE: &str = "GUILD_BENCH_STORE";
const KEYS: usize = 1_000_000;
const OVERWRITES: usize = 1_000_000;
const OVERWRITTEN_KEYS: usize = 10_000;

pub(super) fn is_child() -> bool {
    std::env::var_os(STORE).is_some()
}

/// Opens the store that the environment names and says what that took.
pub(super) fn open_here() {
    let path = PathBuf::from(std::env::var_os(STORE).unwrap());
    let start = Instant::now();
    let open = Open::on_disk(&path, Durability::Disk);
    let seconds = start.elapsed().as_secs_f64();
    let keys = open.memory.snapshots().latest().len();
    println!("| {keys} keys of 256 bytes | {seconds:.2} | {} |", status::kib("VmRSS") / 1_024);
}

pub(super) fn measure(scale: Scale) {
    let folder = folder();
    let path = folder.path().join("large");
    let mut open = Open::on_disk(&path, Durability::Process);
    open.fill(scale.of(KEYS));
    open.memory.close().unwrap();
    println!("| store | s to open | MiB of RAM |\n|---|---|---|");
    // A virtual machine may take longer to find RAM that nobody has used yet than the store takes to open.
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child.env(STORE, &path).status().unwrap();
        assert!(ended.success(), "{ended}");
    }

    let path = folder.path().join("overwritten");
    let mut open = Open::on_disk(&path, Durability::Process);
    let keys = scale.of(OVERWRITTEN_KEYS);
    for first in (0..scale.of(OVERWRITES)).step_by(100) {
        let mut transaction = Transaction::begin(open.memory.snapshots());
        for number in first..first + 100 {
            transaction.put(key(number * 7_919 % keys), &VALUE).unwrap();
        }
        open.memory.transact(NOW, transaction.into_parts()).unwrap();
        open.memory.seal();
        open.memory.take_records();
    }
    open.memory.barrier().unwrap();
    open.memory.close().unwrap();
    let size = reader::read(&path).unwrap().size().unwrap();
    println!(
        "\nafter {} overwrites of {keys} keys: {:.1} bytes on the disk for each byte of a row",
        scale.of(OVERWRITES),
        size.disk_per_live_byte(),
    );
}
