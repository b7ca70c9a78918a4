//! The core workloads of the Yahoo! Cloud Serving Benchmark (Cooper et al., 2010), A to F, with keys
//! by Zipf's law (exponent 0.99), from 64 clients on a memory in RAM.

use guild_memory::Transaction;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::clients::run;
use super::open::{Open, Scale, VALUE, key};

const KEYS: usize = 100_000;
const CLIENTS: usize = 64;
const TRANSACTIONS: usize = 200_000;
const SCAN_ROWS_MAX: usize = 100;

#[derive(Clone, Copy)]
enum Operation {
    Read,
    ReadNewest,
    Update,
    Insert,
    Scan,
    ReadModifyWrite,
}

/// A workload: of the first operation so many percent, of the second one the rest.
const WORKLOADS: [(&str, usize, Operation, Operation); 6] = [
    ("A, half reads, half updates", 50, Operation::Read, Operation::Update),
    ("B, 95 % reads, updates", 95, Operation::Read, Operation::Update),
    ("C, reads", 100, Operation::Read, Operation::Read),
    ("D, 95 % reads of the newest, inserts", 95, Operation::ReadNewest, Operation::Insert),
    ("E, 95 % scans of up to 100 rows, inserts", 95, Operation::Scan, Operation::Insert),
    ("F, half reads, half read-modify-writes", 50, Operation::Read, Operation::ReadModifyWrite),
];

pub(super) fn measure(scale: Scale) {
    println!("| YCSB, zipf 0.99, {CLIENTS} clients | a second | conflicts % |\n|---|---|---|");
    for (name, percent, most, rest) in WORKLOADS {
        let mut keys = scale.of(KEYS);
        let mut open = Open::in_ram();
        open.fill(keys);
        let zipf = Zipf::new(keys as f64, 0.99).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let measured = run(&mut open, CLIENTS, scale.of(TRANSACTIONS), |_, transaction| {
            let operation = if random.random_range(0..100) < percent { most } else { rest };
            let rank = zipf.sample(&mut random) as usize - 1;
            if let Operation::Insert = operation {
                keys += 1;
            }
            let rows = random.random_range(1..=SCAN_ROWS_MAX);
            perform(operation, rank, keys, rows, transaction);
        });
        println!("| {name} | {:.0} | {:.1} |", measured.per_second(), measured.conflict_percent());
    }
}

fn perform(operation: Operation, rank: usize, keys: usize, rows: usize, memory: &mut Transaction) {
    // Popular keys lie anywhere.
    let scattered = key(rank.wrapping_mul(7_919) % keys);
    match operation {
        Operation::Read => drop(memory.get_bytes(scattered).unwrap()),
        Operation::ReadNewest => drop(memory.get_bytes(key(keys - 1 - rank % keys)).unwrap()),
        Operation::Update => memory.put(scattered, &VALUE).unwrap(),
        Operation::Insert => memory.put(key(keys - 1), &VALUE).unwrap(),
        Operation::Scan => drop(memory.scan_bytes(scattered.., rows).unwrap()),
        Operation::ReadModifyWrite => {
            memory.get_bytes(&scattered).unwrap();
            memory.put(scattered, &VALUE).unwrap();
        }
    }
}
