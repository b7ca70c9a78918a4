//! Transactions of four reads and two writes, by durability and by the number of clients.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use guild_memory::store::{SledStore, Store, WriteBatch};
use guild_memory::{Durability, Transaction};

use super::clients::{Measured, run};
use super::{Open, Scale, VALUE, folder, key, micros, percentile};

const KEYS: usize = 100_000;
/// What two writes are as rows, roughly.
const ROWS_BYTES: usize = 600;

pub(super) fn measure(scale: Scale) {
    let sync = bare_sync(scale);
    let sled = sled_alone(scale);
    println!(
        "| transactions of 4 reads and 2 writes of 256 bytes | a second | p50 us | p99 us | commits a group | conflicts % |"
    );
    println!("|---|---|---|---|---|---|");
    let ram = run(&mut filled(Open::in_ram(), scale), 1, scale.of(200_000), four_and_two(scale));
    tell("in RAM, 1 client", &ram);
    for (level, name) in [(Durability::Process, "process"), (Durability::Disk, "disk")] {
        for clients in [1, 16, 256, 1_000] {
            let folder = folder();
            let path = folder.path().join("store");
            let mut open = filled(Open::on_disk(&path, level), scale);
            let total = scale.of(if clients == 1 { 2_000 } else { 100_000 });
            let measured = run(&mut open, clients, total, four_and_two(scale));
            tell(&format!("{name}, {clients} clients"), &measured);
            open.memory.close().unwrap();
        }
    }
    println!("\n| beside it | a second | p50 us | p99 us |\n|---|---|---|---|");
    for (name, latencies) in
        [("write of 600 bytes and fdatasync", sync), ("sled, a sync each", sled)]
    {
        let seconds: f64 = latencies.iter().map(Duration::as_secs_f64).sum();
        let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
        let rate = latencies.len() as f64 / seconds;
        println!("| {name} | {rate:.0} | {:.0} | {:.0} |", micros(p50), micros(p99));
    }
}

fn tell(name: &str, measured: &Measured) {
    println!(
        "| {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
        measured.per_second(),
        micros(measured.p50),
        micros(measured.p99),
        measured.per_group(),
        measured.conflict_percent(),
    );
}

fn filled(mut open: Open, scale: Scale) -> Open {
    open.fill(scale.of(KEYS));
    open
}

fn four_and_two(scale: Scale) -> impl FnMut(usize, &mut Transaction) {
    let keys = scale.of(KEYS);
    move |number, transaction| {
        for read in 0..4 {
            transaction.get_bytes(key((number * 7_919 + read * 1_117) % keys)).unwrap();
        }
        transaction.put(key(number * 7_919 % keys), &VALUE).unwrap();
        transaction.put(key((number * 104_729 + 3) % keys), &VALUE).unwrap();
    }
}

/// What the disk takes for the least that a commit has to write.
fn bare_sync(scale: Scale) -> Vec<Duration> {
    let folder = folder();
    let mut file = File::create(folder.path().join("file")).unwrap();
    let rows = [7; ROWS_BYTES];
    timed(scale.of(2_000), || {
        file.write_all(&rows).unwrap();
        file.sync_data().unwrap();
    })
}

/// sled with a real sync for each commit.
fn sled_alone(scale: Scale) -> Vec<Duration> {
    let folder = folder();
    let mut store = SledStore::open(folder.path().join("store")).unwrap();
    let mut number = 0;
    timed(scale.of(2_000), || {
        let mut batch = WriteBatch::default();
        for _ in 0..2 {
            number += 1;
            batch.put(key(number).into_bytes(), vec![7; ROWS_BYTES / 2]);
        }
        store.apply(&batch).unwrap();
        store.sync(Durability::Disk).unwrap();
    })
}

fn timed(times: usize, mut work: impl FnMut()) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    latencies.sort_unstable();
    latencies
}
