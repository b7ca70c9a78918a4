//! Reads of snapshots, while nothing else happens and while groups are being synced; scans.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guild_memory::{Durability, Snapshots, Transaction};

use super::clients::run;
use super::open::{Open, Scale, VALUE, folder, key};

const KEYS: usize = 100_000;
/// Reads between two looks at the clock.
const READS: usize = 256;

pub(super) fn measure(scale: Scale) {
    let folder = folder();
    let mut open = Open::on_disk(&folder.path().join("store"), Durability::Disk);
    open.fill(scale.of(KEYS));
    println!("| reads of snapshots by one thread | a second |\n|---|---|");
    let time = Duration::from_millis(scale.of(2_000) as u64);
    let keys = Keys::all(scale.of(KEYS));
    let is_late = |since: Instant| since.elapsed() >= time;
    let many = reads(&open.memory.snapshots(), &keys, READS, is_late);
    println!("| nothing else happens, {READS} of each snapshot | {many:.0} |");
    let idle = reads(&open.memory.snapshots(), &keys, 1, is_late);
    println!("| nothing else happens, each of the newest one | {idle:.0} |");

    let is_over = AtomicBool::new(false);
    let snapshots = open.memory.snapshots();
    let busy = thread::scope(|scope| {
        let reader =
            scope.spawn(|| reads(&snapshots, &keys, 1, |_| is_over.load(Ordering::Relaxed)));
        let start = Instant::now();
        while start.elapsed() < time {
            let keys = scale.of(KEYS);
            run(&mut open, 1, scale.of(50).max(2), |number, transaction| {
                transaction.put(key(number % keys), &VALUE).unwrap();
            });
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    println!("| one commit after the other is synced, each of the newest one | {busy:.0} |");
    println!("\nwhile it syncs, {:.2} of what it is otherwise", busy / idle);
    open.memory.close().unwrap();
}

/// All keys, one behind the other: what is measured is not how they are found here.
struct Keys {
    texts: String,
    length: usize,
}

impl Keys {
    fn all(keys: usize) -> Self {
        Self { texts: (0..keys).map(key).collect(), length: key(0).len() }
    }

    fn at(&self, place: usize) -> &[u8] {
        &self.texts.as_bytes()[place * self.length..][..self.length]
    }

    fn len(&self) -> usize {
        self.texts.len() / self.length
    }
}

/// Reads keys until it is over, so many of the newest snapshot before it takes the next one; returns how
/// many a second.
fn reads(
    snapshots: &Snapshots,
    keys: &Keys,
    of_one: usize,
    is_over: impl Fn(Instant) -> bool,
) -> f64 {
    let start = Instant::now();
    let (mut count, mut place) = (0_u64, 0);
    while !is_over(start) {
        for _ in 0..READS / of_one {
            let snapshot = snapshots.latest();
            for _ in 0..of_one {
                place = (place + 7_919) % keys.len();
                black_box(snapshot.get(keys.at(place)));
            }
        }
        count += READS as u64;
    }
    count as f64 / start.elapsed().as_secs_f64()
}

pub(super) fn measure_scans(scale: Scale) {
    let mut open = Open::in_ram();
    open.fill(scale.of(KEYS));
    println!("| scans in a transaction | a second | rows a second |\n|---|---|---|");
    for rows in [10, 100, 1_000] {
        let times = scale.of(1_000_000 / rows);
        let start = Instant::now();
        let mut found = 0;
        for number in 0..times {
            let mut transaction = Transaction::begin(open.memory.snapshots());
            let from = key(number * 7_919 % scale.of(KEYS));
            found += black_box(transaction.scan_bytes(from.., rows).unwrap()).len();
        }
        let seconds = start.elapsed().as_secs_f64();
        let (scans, rows_read) = (times as f64 / seconds, found as f64 / seconds);
        println!("| of {rows} rows | {scans:.0} | {rows_read:.0} |");
    }
}
