//! Transactions of four reads and two writes, by durability and by the number of clients.

use guild_memory::Durability;

use super::bare::write_and_sync;
use super::clients::{KEYS, Measured, four_and_two, run};
use super::open::{Open, Scale, folder, micros};

pub(super) fn measure(scale: Scale) {
    let bare = write_and_sync(scale);
    println!(
        "| transactions of 4 reads and 2 writes of 256 bytes | a second | p50 us | p99 us | commits a group | conflicts % |"
    );
    println!("|---|---|---|---|---|---|");
    let mut ram = filled(Open::in_ram(), scale);
    tell("in RAM, 1 client", &run(&mut ram, 1, scale.of(200_000), four_and_two(scale)));
    let additions = run(&mut ram, 1, scale.of(200_000), |_, memory| memory.add("sum", 1).unwrap());
    tell("in RAM, 1 client, an addition instead", &additions);
    let scans = run(&mut ram, 1, scale.of(5_000), |_, memory| {
        memory.scan_bytes("keys/".., 1_000).unwrap();
        memory.put("scanned", &1).unwrap();
    });
    tell("in RAM, 1 client, a scan of 1,000 keys and a write instead", &scans);
    for (level, name) in [(Durability::Process, "process"), (Durability::Disk, "disk")] {
        for clients in [1, 16, 64, 128, 256, 1_000] {
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
    println!(
        "| write of 600 bytes and fdatasync | {:.0} | {:.0} | {:.0} |",
        bare.per_second(),
        bare.percentile_us(50),
        bare.percentile_us(99),
    );
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
