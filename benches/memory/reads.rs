//! Reads of snapshots, while nothing else happens and while groups are being synced; scans.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guild_memory::{Durability, Snapshots, Transaction};

use super::clients::run;
use super::open::{Open, Scale, VALUE, folder, key};

const KEYS: usize = 100_000;
/// Pairs of rounds, without and with syncs.
const ROUNDS: usize = 25;
/// Reads between two looks at the clock.
const READS: usize = 256;

pub(super) fn measure(scale: Scale) {
    let folder = folder();
    let mut open = Open::on_disk(&folder.path().join("store"), Durability::Disk);
    open.fill(scale.of(KEYS));
    println!("| reads of snapshots by one thread | a second of its core |\n|---|---|");
    let keys = Keys::all(scale.of(KEYS));
    let many = idle(&open, &keys, READS, scale);
    println!("| nothing else happens, {READS} of each snapshot | {many:.0} |");
    // In turns, so that both meet the same neighbours on a shared machine.
    let mut found = [(); 3].map(|()| Vec::new());
    for _ in 0..scale.of(ROUNDS) {
        let (alone, syncing) =
            (idle(&open, &keys, 1, scale), while_syncing(&mut open, &keys, scale));
        let all = [alone, syncing, syncing / alone];
        found.iter_mut().zip(all).for_each(|(list, figure)| list.push(figure));
    }
    let [alone, syncing, ratio] = found.map(median);
    println!("| nothing else happens, each of the newest one | {alone:.0} |");
    println!("| one commit after the other is synced, each of the newest one | {syncing:.0} |");
    println!("\nwhile it syncs, {ratio:.2} of what it is otherwise (medians of rounds)");
    open.memory.close().unwrap();
}

fn round(scale: Scale) -> Duration {
    Duration::from_millis(scale.of(20_000).min(150) as u64)
}

fn idle(open: &Open, keys: &Keys, of_one: usize, scale: Scale) -> f64 {
    reads(&open.memory.snapshots(), keys, of_one, |since| since.elapsed() >= round(scale))
}

fn while_syncing(open: &mut Open, keys: &Keys, scale: Scale) -> f64 {
    let is_over = AtomicBool::new(false);
    let snapshots = open.memory.snapshots();
    thread::scope(|scope| {
        let reader =
            scope.spawn(|| reads(&snapshots, keys, 1, |_| is_over.load(Ordering::Relaxed)));
        let start = Instant::now();
        while start.elapsed() < round(scale) {
            let keys = scale.of(KEYS);
            run(open, 1, scale.of(50).max(2), |number, transaction| {
                transaction.put(key(number % keys), &VALUE).unwrap();
            });
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    })
}

/// Returns how long this thread was on a core, to a few milliseconds, as Linux says.
fn on_core() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
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
/// many in a second of a core: what other threads do on the same core is not counted.
fn reads(
    snapshots: &Snapshots,
    keys: &Keys,
    of_one: usize,
    is_over: impl Fn(Instant) -> bool,
) -> f64 {
    let (start, before) = (Instant::now(), on_core());
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
    count as f64 / (on_core() - before).as_secs_f64()
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
