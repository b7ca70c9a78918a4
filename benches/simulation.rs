//! How fast a whole guild runs in virtual time: events a second, real seconds and memory, by the
//! number of agents and by the size of the graph.
//!
//! `cargo bench --bench simulation`. Each row is measured in a process of its own, so that no row
//! inherits the memory of another. Without `--bench` (in `cargo test`) everything runs once, small.
//! The graph of `epigenomics-10000` is beside the project; where it is absent the row says so.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod status;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guild_sim::Simulation;
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

fn main() {
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    if !is_measured {
        return LOOKED_AT.into_iter().for_each(|row| measure_here(row, 1));
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
}
