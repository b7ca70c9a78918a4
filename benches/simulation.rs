//! How fast a whole guild runs in virtual time: events a second, real seconds and memory, by the
//! number of agents and by the size of the graph; and how fast histories are checked.
//!
//! `cargo bench --bench simulation`. Each row is measured in a process of its own, so that no row
//! inherits the memory of another, which is why criterion does not measure them. Without `--bench` (in `cargo test`) everything runs once, small.
//! The graph of `epigenomics-10000` is beside the project; where it is absent the row says so.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod status;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guild_sim::Simulation;
use guild_sim::checker::serial::reader;
use guild_sim::workload::{Durations, WorkTask, Workload, read_workflow};

/// Names the row that this process measures.
const ROW: &str = "GUILD_BENCH_ROW";
const ROUNDS: usize = 3;

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Row {
    name: &'static str,
    tasks: usize,
    agents: u32,
}

const MEASURED: [Row; 5] = [
    Row { name: "independent", tasks: 400_000, agents: 1_000 },
    Row { name: "independent", tasks: 400_000, agents: 10_000 },
    Row { name: "independent", tasks: 400_000, agents: 100_000 },
    Row { name: "epigenomics-10000", tasks: 10_000, agents: 256 },
    Row { name: "chains between a fan", tasks: 1_000_000, agents: 1_000 },
];
const LOOKED_AT: [Row; 2] = [
    Row { name: "independent", tasks: 500, agents: 50 },
    Row { name: "chains between a fan", tasks: 500, agents: 50 },
];

/// What was measured.
struct Found {
    events: u64,
    elapsed: Duration,
    virtual_time: Duration,
}

/// Tasks that wait for nothing, each of its own duration.
fn independent(tasks: usize) -> Workload {
    let (min, max) = (Duration::from_millis(1), Duration::from_secs(1));
    let mut workload = Workload::new("independent", "worker");
    for place in 0..tasks {
        workload.add(WorkTask::new(format!("t{place}"), Durations::Uniform { min, max }));
    }
    workload
}

fn epigenomics() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let data = std::env::var_os("GUILD_SHARED_DATA").map_or(root, PathBuf::from);
    let path = data.join("workflows/epigenomics-10000-seed42.json.gz");
    path.is_file().then_some(path)
}

/// Reads or makes the workload and simulates it; reading a file is part of what is measured.
fn measure(row: Row) -> Option<Found> {
    let made = match row.name {
        "independent" => Some(independent(row.tasks)),
        "epigenomics-10000" => None,
        _ => Some(Workload::chain_and_fan(
            row.name,
            row.tasks,
            &Durations::Fixed(Duration::from_secs(1)),
        )),
    };
    let file = if made.is_none() { Some(epigenomics()?) } else { None };
    let simulation = Simulation { agents: Some(row.agents), ..Simulation::default() };
    let start = Instant::now();
    let workload =
        made.unwrap_or_else(|| read_workflow(&std::fs::read(file.unwrap()).unwrap()).unwrap());
    let simulated = simulation.run(&workload, Vec::new()).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(simulated.tally.completed as usize, workload.tasks.len());
    Some(Found { events: simulated.counts.events, elapsed, virtual_time: simulated.makespan })
}

/// Prints the best of a few rounds of one row: on a shared machine the rest is the neighbours'.
fn measure_here(row: Row, rounds: usize) {
    let found = (0..rounds).map(|_| measure(row)).collect::<Option<Vec<Found>>>();
    let Some(best) = found.and_then(|found| found.into_iter().min_by_key(|found| found.elapsed))
    else {
        println!(
            "| {}, {} agents | SKIPPED: no such file; set GUILD_SHARED_DATA to the inputs | | | | |",
            row.name, row.agents
        );
        return;
    };
    let seconds = best.elapsed.as_secs_f64();
    println!(
        "| {} tasks, {}, {} agents | {:.2} | {:.0} | {:.0} | {:.0} | {} |",
        row.tasks,
        row.name,
        row.agents,
        seconds,
        best.events as f64 / seconds,
        1e9 * seconds / best.events as f64,
        best.virtual_time.as_secs_f64(),
        status::kib("VmHWM") / 1_024,
    );
}

/// Clients of a history, each with one transaction at a time.
const CLIENTS: u64 = 8;
/// A list is read and appended to by so many transactions; then come others.
const TRANSACTIONS_OF_A_LIST: u64 = 200;

/// Returns the two keys that a transaction uses; it writes to the first one.
fn keys(number: u64) -> [u64; 2] {
    let first = number / TRANSACTIONS_OF_A_LIST * 4;
    [first + number % 4, first + number / 4 % 4]
}

/// Transactions that read two lists and append to one, in Elle's form; so many are under way at once.
fn list_history(transactions: u64) -> String {
    let (mut text, mut lists) = (String::new(), BTreeMap::<u64, Vec<u64>>::new());
    for moment in 0..transactions + CLIENTS {
        if let Some(number) = moment.checked_sub(CLIENTS) {
            let [written, other] = keys(number);
            let read = |key| lists.get(&key).map_or(&[][..], |list| list);
            let steps = [written, other].map(|key| format!(r#"["r",{key},{:?}]"#, read(key)));
            let [one, two] = steps;
            let process = number % CLIENTS;
            let append = format!(r#"["append",{written},{number}]"#);
            writeln!(text, r#"{{"type":"ok","process":{process},"value":[{one},{two},{append}]}}"#)
                .unwrap();
            lists.entry(written).or_default().push(number);
        }
        if moment < transactions {
            let process = moment % CLIENTS;
            writeln!(text, r#"{{"type":"invoke","process":{process},"value":[]}}"#).unwrap();
        }
    }
    text
}

/// Commits that read two keys and write one, in Guild's form.
fn commit_history(commits: u64) -> String {
    let (mut text, mut newest) = (String::new(), BTreeMap::<u64, u64>::new());
    for version in 1..=commits {
        let [written, other] = keys(version);
        let commit = reader::line(&guild_sim::checker::serial::versions::Commit {
            version,
            from: 2 * version,
            to: 2 * version + CLIENTS,
            snapshot: version - 1,
            reads: [written, other].map(|key| (key.to_string(), newest.get(&key).copied())).into(),
            writes: vec![written.to_string()],
            ..Default::default()
        });
        writeln!(text, "{commit}").unwrap();
        newest.insert(written, version);
    }
    text
}

/// Prints how long it takes to read and check histories.
fn measure_checkers(transactions: u64) {
    println!("\n| history, read and checked | real s | dependencies |\n|---|---|---|");
    for (name, text) in [
        ("transactions on lists (Elle's form)", list_history(transactions)),
        ("commits (Guild's form)", commit_history(transactions)),
    ] {
        let start = Instant::now();
        let verdict = reader::read(&text).unwrap().check();
        let seconds = start.elapsed().as_secs_f64();
        assert!(verdict.is_serialisable(), "{:?}", verdict.anomalies.first());
        assert_eq!(verdict.transactions as u64, transactions);
        println!("| {transactions} {name} | {seconds:.2} | {} |", verdict.dependencies);
    }
}

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if !is_measured {
        LOOKED_AT.into_iter().for_each(|row| measure_here(row, 1));
        return measure_checkers(500);
    }
    if let Some(place) = std::env::var(ROW).ok().and_then(|place| place.parse::<usize>().ok()) {
        return measure_here(MEASURED[place], ROUNDS);
    }
    println!("| what | real s | events a second | ns an event | virtual s | peak MiB |");
    println!("|---|---|---|---|---|---|");
    for place in 0..MEASURED.len() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let ended = child.arg("--bench").env(ROW, place.to_string()).status().unwrap();
        assert!(ended.success(), "row {place}: {ended}");
    }
    measure_checkers(100_000);
}
