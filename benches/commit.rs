//! What a commit costs in the shared memory alone, in RAM and in durable groups.
//!
//! `cargo bench --bench commit`

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use guild_core::limits::Limits;
use guild_core::time::Timestamp;
use guild_memory::store::{SledStore, Store};
use guild_memory::{Durability, Memory, Transaction, TransactionParts};

const NOW: Timestamp = Timestamp(1);
const KEYS: u64 = 10_000;
/// 256 bytes as JSON.
const VALUE: [u64; 32] = [1_234_567; 32];

fn open(store: Option<Box<dyn Store>>, durability: Durability) -> Memory {
    let (mut memory, _) = Memory::open(
        store,
        durability,
        Limits::default(),
        guild_memory::Commits::OnThread(Box::new(|| {})),
    )
    .unwrap();
    for number in 0..KEYS {
        let parts = transaction(&memory, |memory| memory.put(key(number), &VALUE).unwrap());
        memory.transact(NOW, parts).unwrap();
    }
    memory.seal();
    memory
}

fn transaction(memory: &Memory, work: impl FnOnce(&mut Transaction)) -> TransactionParts {
    let mut transaction = Transaction::begin(memory.snapshots());
    work(&mut transaction);
    transaction.into_parts()
}

fn key(number: u64) -> String {
    format!("keys/{:08}", number % KEYS)
}

/// Four reads and two writes of 256 bytes.
fn four_reads_two_writes(memory: &Memory, number: u64) -> TransactionParts {
    transaction(memory, |memory| {
        for read in 0..4 {
            memory.get_bytes(key(number * 31 + read * 1_117)).unwrap();
        }
        memory.put(key(number * 31), &VALUE).unwrap();
        memory.put(key(number * 17), &VALUE).unwrap();
    })
}

fn in_ram(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit in RAM");
    let mut memory = open(None, Durability::Memory);
    let mut number = 0;
    group.bench_function("4 reads, 2 writes, one group each", |bencher| {
        bencher.iter(|| {
            number += 1;
            let parts = four_reads_two_writes(&memory, number);
            memory.transact(NOW, parts).unwrap();
            memory.take_records();
            memory.seal()
        });
    });
    group.bench_function("add", |bencher| {
        bencher.iter(|| {
            let parts = transaction(&memory, |memory| memory.add("sum", 1).unwrap());
            memory.transact(NOW, parts).unwrap();
            memory.take_records();
            memory.seal()
        });
    });
    group.bench_function("scan of 1,000 keys and a write", |bencher| {
        bencher.iter(|| {
            let parts = transaction(&memory, |memory| {
                memory.scan_prefix_bytes("keys/00000", 1_000).unwrap();
                memory.put("scanned", &1).unwrap();
            });
            memory.transact(NOW, parts).unwrap();
            memory.take_records();
            memory.seal()
        });
    });
    group.finish();
}

fn durable(criterion: &mut Criterion) {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let size: u64 = if measures { 1_000 } else { 10 };
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let store: Box<dyn Store> = Box::new(SledStore::open(folder.path().join("store")).unwrap());
    let mut memory = open(Some(store), Durability::Disk);
    memory.barrier().unwrap();
    let mut group = criterion.benchmark_group("commit to disk");
    group.sample_size(10).throughput(Throughput::Elements(size));
    let mut number = 0;
    group.bench_function(format!("a group of {size}, 4 reads and 2 writes each"), |bencher| {
        bencher.iter_batched(
            || (),
            |()| {
                for _ in 0..size {
                    number += 1;
                    // Sealed, or the next one would conflict with what its snapshot does not show.
                    let parts = four_reads_two_writes(&memory, number);
                    memory.transact(NOW, parts).unwrap();
                    memory.seal();
                }
                memory.take_records();
                memory.barrier().unwrap();
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    memory.close().unwrap();
}

criterion_group!(benches, in_ram, durable);
criterion_main!(benches);
