//! Clients that each have one transaction under way, and the one controller that commits for all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guild_memory::Transaction;

use super::open::{NOW, Open, Scale, VALUE, key, percentile};

/// Keys of the memory that transactions are measured on.
pub(crate) const KEYS: usize = 100_000;

/// What was measured.
pub(crate) struct Measured {
    pub(crate) elapsed: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) committed: usize,
    /// Commits that were refused, and tried again.
    pub(crate) conflicts: usize,
    /// Times that commits were acknowledged together.
    pub(crate) groups: usize,
}

impl Measured {
    pub(crate) fn per_second(&self) -> f64 {
        self.committed as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn per_group(&self) -> f64 {
        self.committed as f64 / self.groups.max(1) as f64
    }

    pub(crate) fn conflict_percent(&self) -> f64 {
        100.0 * self.conflicts as f64 / (self.committed + self.conflicts) as f64
    }
}

/// One transaction: its number, and when its client began it.
type Begun = (usize, Instant);

/// Commits `total` transactions of `clients` clients. Those that are free begin at the same snapshot,
/// as they would side by side; one that is refused begins anew at the next one.
pub(crate) fn run(
    open: &mut Open,
    clients: usize,
    total: usize,
    mut work: impl FnMut(usize, &mut Transaction),
) -> Measured {
    let start = Instant::now();
    let mut begun: Vec<Begun> = (0..clients.min(total)).map(|number| (number, start)).collect();
    let mut next = begun.len();
    let mut waiting = VecDeque::new();
    let mut latencies = Vec::with_capacity(total);
    let (mut conflicts, mut groups) = (0, 0);
    while latencies.len() < total {
        let side_by_side: Vec<_> = begun
            .drain(..)
            .map(|(number, since)| {
                let mut transaction = Transaction::begin(open.memory.snapshots());
                work(number, &mut transaction);
                (number, since, transaction.into_parts())
            })
            .collect();
        let mut committed: Vec<Begun> = Vec::new();
        for (number, since, parts) in side_by_side {
            match open.memory.transact(NOW, parts) {
                Ok(_) => committed.push((number, since)),
                Err(error) if error.is_retryable() => {
                    conflicts += 1;
                    begun.push((number, since));
                }
                Err(error) => panic!("{error}"),
            }
        }
        waiting.push_back((open.memory.seal(), committed));
        open.memory.take_records();
        loop {
            let (acknowledged, before) = (open.memory.acknowledged(), latencies.len());
            while waiting.front().is_some_and(|(group, _)| *group <= acknowledged) {
                let (_, ended) = waiting.pop_front().unwrap();
                latencies.extend(ended.iter().map(|(_, since)| since.elapsed()));
                let now = Instant::now();
                let free = ended.len().min(total - next);
                begun.extend((next..next + free).map(|number| (number, now)));
                next += free;
            }
            groups += usize::from(latencies.len() > before);
            if !begun.is_empty() || waiting.is_empty() {
                break;
            }
            open.acknowledged.recv().unwrap();
        }
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    let (p50, p99) = (percentile(&latencies, 50), percentile(&latencies, 99));
    Measured { elapsed, p50, p99, committed: total, conflicts, groups }
}

/// Four reads and two writes of 256 bytes.
pub(crate) fn four_and_two(scale: Scale) -> impl FnMut(usize, &mut Transaction) {
    let keys = scale.of(KEYS);
    move |number, transaction| {
        for read in read_keys(number, keys) {
            transaction.get_bytes(key(read)).unwrap();
        }
        for written in written_keys(number, keys) {
            transaction.put(key(written), &VALUE).unwrap();
        }
    }
}

/// Returns which keys a transaction reads.
pub(crate) fn read_keys(number: usize, keys: usize) -> [usize; 4] {
    [0, 1, 2, 3].map(|read| (number * 7_919 + read * 1_117) % keys)
}

/// Returns which keys a transaction writes.
pub(crate) fn written_keys(number: usize, keys: usize) -> [usize; 2] {
    [number * 7_919 % keys, (number * 104_729 + 3) % keys]
}
