//! Durable transactions of four reads and two writes of 256 bytes: Guild beside the disk alone and
//! beside other engines, in one run, so that ratios hold on any machine.
//!
//! `cargo bench --manifest-path benches/peers/Cargo.toml --bench memory`. Guild groups what its
//! clients commit meanwhile; the engines are given one transaction at a time, or as many in one
//! commit as Guild has clients. The engines do less: no checks for conflicts, no versions, no events.

#![deny(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "../../memory/bare.rs"]
mod bare;
#[path = "../../memory/clients.rs"]
mod clients;
mod engines;
#[path = "../../memory/open.rs"]
mod open;

use guild_memory::Durability;

use self::bare::{Times, write_and_sync};
use self::clients::{KEYS, four_and_two, run};
use self::engines::{Engine, Lmdb, Redb, Sled};
use self::open::{Open, Scale, folder, micros};

/// Transactions, whoever commits them.
const TRANSACTIONS: usize = 50_000;
/// Commits, where there are fewer transactions than that in each.
const COMMITS: usize = 2_000;

/// A row of the table.
struct Row {
    name: String,
    per_second: f64,
    per_group: f64,
    conflict_percent: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale::of_arguments(&arguments);
    let bare = write_and_sync(scale);
    let mut rows = vec![row("write of 600 bytes and fdatasync".to_owned(), &bare, 1)];
    rows.push(guild("guild, in RAM, 1 client".to_owned(), Open::in_ram(), 1, scale));
    for (level, name) in [(Durability::Process, "process"), (Durability::Disk, "disk")] {
        for clients in [1, 16, 256, 1_000] {
            let folder = folder();
            let open = Open::on_disk(&folder.path().join("store"), level);
            rows.push(guild(format!("guild, {name}, {clients} clients"), open, clients, scale));
        }
    }
    let folder = folder();
    rows.push(engine("sled", Sled::open(&folder.path().join("sled")), 1, scale));
    rows.push(engine("redb", Redb::open(&folder.path().join("redb")), 1, scale));
    for batch in [1, 16, 256, 1_000] {
        let path = folder.path().join(format!("lmdb-{batch}"));
        rows.push(engine("lmdb", Lmdb::open(&path), batch, scale));
    }
    println!(
        "| transactions of 4 reads and 2 writes | a second | of bare | p50 us | p99 us | a group | conflicts % |"
    );
    println!("|---|---|---|---|---|---|---|");
    let bare = rows[0].per_second;
    for row in rows {
        println!(
            "| {} | {:.0} | {:.2} | {:.0} | {:.0} | {:.1} | {:.1} |",
            row.name,
            row.per_second,
            row.per_second / bare,
            row.p50_us,
            row.p99_us,
            row.per_group,
            row.conflict_percent,
        );
    }
}

fn guild(name: String, mut open: Open, clients: usize, scale: Scale) -> Row {
    open.fill(scale.of(KEYS));
    let total = scale.of(TRANSACTIONS.min(clients * COMMITS));
    let measured = run(&mut open, clients, total, four_and_two(scale));
    open.memory.close().unwrap();
    Row {
        name,
        per_second: measured.per_second(),
        per_group: measured.per_group(),
        conflict_percent: measured.conflict_percent(),
        p50_us: micros(measured.p50),
        p99_us: micros(measured.p99),
    }
}

/// Measures an engine with so many transactions in each commit.
fn engine(name: &str, mut engine: impl Engine, batch: usize, scale: Scale) -> Row {
    let keys = scale.of(KEYS);
    engine.fill(keys);
    let commits = scale.of(COMMITS.min(TRANSACTIONS / batch));
    let mut next = 0;
    let times = Times::of(commits, || {
        engine.commit(next..next + batch, keys);
        next += batch;
    });
    row(format!("{name}, {batch} in a commit"), &times, batch)
}

fn row(name: String, times: &Times, batch: usize) -> Row {
    Row {
        name,
        per_second: times.per_second() * batch as f64,
        per_group: batch as f64,
        conflict_percent: 0.0,
        p50_us: times.percentile_us(50),
        p99_us: times.percentile_us(99),
    }
}
