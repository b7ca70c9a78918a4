//! A sweep of `guild simulate`: the product of parameters and seeds, on all cores.
//!
//! Every simulation has a world of its own, on one thread; the rows come out in the order of the
//! parameters, whichever simulation ends first.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use guild_sim::report::{Page, Recorder, SweepPoint};
use guild_sim::workload::Workload;
use guild_sim::world::LogReader;
use guild_sim::{SimulateError, Simulated, side_by_side};
use serde::Serialize;

use crate::args::{Format, Policy, SimulateArguments};
use crate::command::print;
use crate::command::report::{self, Shown};
use crate::command::simulate::{exit, refused, simulation, summary};
use crate::command::verify;
use crate::exit_code::{CommandError, Exit};
use crate::faults::{self, Chaos, Struck};
use crate::progress::CountBar;
use crate::render::{Summary, numbers_right, table};

/// One combination of parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    agents: Option<u32>,
    policy: Policy,
}

/// The parameters and seeds of a sweep.
#[derive(Debug)]
pub(crate) struct Sweep {
    points: Vec<Point>,
    seeds: Vec<u64>,
    is_asked_for: bool,
}

/// One simulation of a sweep.
struct Row {
    point: Point,
    seed: u64,
    simulated: Simulated,
}

impl Sweep {
    /// Reads `--sweep` and `--seeds`.
    pub(crate) fn parse(arguments: &SimulateArguments) -> Result<Self, CommandError> {
        let mut agents = vec![arguments.agents];
        let mut policies = vec![arguments.policy];
        let mut seen = Vec::new();
        for spec in &arguments.sweep {
            let (key, values) = spec
                .split_once('=')
                .ok_or_else(|| bad(format!("`{spec}` is no parameter: write agents=4,16,64")))?;
            if seen.contains(&key) {
                return Err(bad(format!(
                    "`{key}` is given twice: write all its values in one list"
                )));
            }
            seen.push(key);
            let values = values.split(',').map(str::trim);
            match key {
                "agents" => {
                    agents = values.map(|value| count(value).map(Some)).collect::<Result<_, _>>()?
                }
                "policy" => policies = values.map(policy).collect::<Result<_, _>>()?,
                _ => {
                    return Err(bad(format!(
                        "unknown parameter `{key}`: there are agents and policy"
                    )));
                }
            }
        }
        let points = policies
            .iter()
            .flat_map(|policy| {
                agents.iter().map(|agents| Point { agents: *agents, policy: *policy })
            })
            .collect();
        let first = arguments.seed;
        let seeds = (0..arguments.seeds.unwrap_or(1)).map(|n| first.wrapping_add(n)).collect();
        let is_asked_for = !arguments.sweep.is_empty() || arguments.seeds.is_some();
        let wrong = |message: &str| Err(CommandError::BadInput(message.to_owned()));
        if is_asked_for && arguments.events.is_some() {
            return wrong("--events: a sweep has many logs; simulate one seed to write its log");
        }
        if !is_asked_for && arguments.csv.is_some() {
            return wrong("--csv: there is no sweep; add --sweep agents=4,16 or --seeds 20");
        }
        Ok(Self { points, seeds, is_asked_for })
    }

    /// Returns whether there is only one simulation to run.
    pub(crate) fn is_single(&self) -> bool {
        !self.is_asked_for
    }
}

fn bad(message: String) -> CommandError {
    CommandError::BadInput(format!("--sweep: {message}"))
}

fn count(value: &str) -> Result<u32, CommandError> {
    let count = value.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| bad(format!("`{value}` is no number of agents: write 1 to 1000000")))
}

fn policy(value: &str) -> Result<Policy, CommandError> {
    Policy::from_str(value, false).map_err(|_| {
        bad(format!("unknown policy `{value}`: there are critical-path, fifo and random"))
    })
}

/// Runs the sweep and prints its table and its CSV.
pub(crate) fn run(
    arguments: &SimulateArguments,
    workload: &Workload,
    chaos: Option<&Chaos>,
    sweep: &Sweep,
) -> Result<Exit, CommandError> {
    let jobs: Vec<(Point, u64)> = sweep
        .points
        .iter()
        .flat_map(|point| sweep.seeds.iter().map(|seed| (*point, *seed)))
        .collect();
    let bar = CountBar::new(jobs.len() as u64);
    let struck = Struck::default();
    let one = |(point, seed): (Point, u64)| -> Result<Row, CommandError> {
        let mut simulation = simulation(arguments, workload, chaos, point.agents, seed)?;
        simulation.order = point.policy.order();
        let watch = verify::watch(arguments.validate);
        let mut readers: Vec<Box<dyn LogReader>> = vec![Box::new(struck.clone())];
        readers.extend(verify::reader(watch.as_ref()));
        let simulated = simulation
            .run(workload, readers)
            .map_err(|error: SimulateError| refused(arguments, &error))?;
        verify::judge_simulation(watch.as_ref(), seed)?;
        bar.simulated(simulated.makespan);
        Ok(Row { point, seed, simulated })
    };
    let rows = side_by_side(&jobs, arguments.jobs.map(usize::from), one)?;
    bar.clear();
    if let Some(path) = &arguments.report {
        report::write(path, &page(arguments, workload, chaos, &rows, sweep)?)?;
    }
    show(arguments, &rows, sweep)?;
    let failed = rows.iter().any(|row| exit(&row.simulated) != Exit::Done);
    Ok(faults::judge(chaos, &struck, if failed { Exit::Failed } else { Exit::Done }))
}

/// Returns the page of the sweep; the run that it shows is the first of the fastest combination.
fn page(
    arguments: &SimulateArguments,
    workload: &Workload,
    chaos: Option<&Chaos>,
    rows: &[Row],
    sweep: &Sweep,
) -> Result<Page, CommandError> {
    let parts: Vec<&[Row]> = rows.chunks(sweep.seeds.len().max(1)).collect();
    let fastest = parts.iter().min_by_key(|rows| median(rows)).map_or(&rows[0], |rows| &rows[0]);
    let (point, seed) = (fastest.point, fastest.seed);
    let mut again = simulation(arguments, workload, chaos, point.agents, seed)?;
    again.order = point.policy.order();
    let recorder = Recorder::default();
    again
        .run(workload, vec![Box::new(recorder.clone())])
        .map_err(|error| refused(arguments, &error))?;
    let simulated = &fastest.simulated;
    let Point { agents, policy } = point;
    let shown = Shown { workload: &workload.name, simulated, agents, policy, seed };
    let points = parts.iter().map(|rows| sweep_point(rows)).collect();
    Ok(report::page(arguments, &shown, recorder.take(), points))
}

fn sweep_point(rows: &[Row]) -> SweepPoint {
    let line = line(rows);
    SweepPoint {
        series: line.policy,
        agents: line.agents,
        makespans: rows.iter().map(|row| row.simulated.makespan).collect(),
        bound: Duration::from_secs_f64(line.bound_s),
        busy: line.utilisation,
        failed: line.failed,
    }
}

fn median(rows: &[Row]) -> Duration {
    let mut makespans: Vec<Duration> = rows.iter().map(|row| row.simulated.makespan).collect();
    makespans.sort_unstable();
    makespans.get(makespans.len() / 2).copied().unwrap_or_default()
}

/// One line for each combination of parameters.
#[derive(Serialize)]
struct Line {
    /// Agents of each role, where they were asked for.
    agents_each: Option<u32>,
    agents: u64,
    policy: String,
    seeds: usize,
    makespan_min_s: f64,
    makespan_median_s: f64,
    makespan_max_s: f64,
    bound_s: f64,
    utilisation: f64,
    crashes: u64,
    failed: u64,
}

fn lines(rows: &[Row], sweep: &Sweep) -> Vec<Line> {
    rows.chunks(sweep.seeds.len().max(1)).map(line).collect()
}

/// Sums up the seeds of one combination.
fn line(rows: &[Row]) -> Line {
    let mut makespans: Vec<Duration> = rows.iter().map(|row| row.simulated.makespan).collect();
    makespans.sort_unstable();
    let at = |place: usize| makespans.get(place).copied().unwrap_or_default().as_secs_f64();
    let first = &rows[0];
    let bound = |row: &Row| row.simulated.bound.as_secs_f64();
    let mean = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    let busy = |row: &Row| {
        let capacity = row.simulated.makespan.as_secs_f64() * row.simulated.agents as f64;
        if capacity > 0.0 { row.simulated.work.as_secs_f64() / capacity } else { 0.0 }
    };
    Line {
        agents_each: first.point.agents,
        agents: first.simulated.agents,
        policy: first.point.policy.to_string(),
        seeds: rows.len(),
        makespan_min_s: at(0),
        makespan_median_s: at(makespans.len() / 2),
        makespan_max_s: at(makespans.len() - 1),
        bound_s: mean(&bound),
        utilisation: mean(&busy),
        crashes: rows.iter().map(|row| row.simulated.counts.crashes).sum(),
        failed: rows.iter().map(|row| u64::from(row.simulated.tally.failed)).sum(),
    }
}

#[derive(Serialize)]
struct JsonRow {
    policy: String,
    #[serde(flatten)]
    summary: Summary,
}

fn show(arguments: &SimulateArguments, rows: &[Row], sweep: &Sweep) -> Result<(), CommandError> {
    let csv = csv(rows);
    if let Some(path) = &arguments.csv {
        std::fs::write(path, &csv)?;
    }
    if arguments.format == Format::Json {
        let runs: Vec<JsonRow> = rows
            .iter()
            .map(|row| JsonRow {
                policy: row.point.policy.to_string(),
                summary: summary(&row.simulated, row.seed),
            })
            .collect();
        let object = serde_json::json!({ "sweep": lines(rows, sweep), "runs": runs });
        return print(&format!("{object}\n"));
    }
    let mut table = table(&[
        "policy",
        "agents each",
        "in all",
        "seeds",
        "makespan min",
        "median",
        "max",
        "lower bound",
        "busy",
        "crashes",
        "failed",
    ]);
    for line in lines(rows, sweep) {
        table.add_row([
            line.policy,
            line.agents_each.map_or_else(|| "as it says".to_owned(), |agents| agents.to_string()),
            line.agents.to_string(),
            line.seeds.to_string(),
            format!("{:.3} s", line.makespan_min_s),
            format!("{:.3} s", line.makespan_median_s),
            format!("{:.3} s", line.makespan_max_s),
            format!("{:.3} s", line.bound_s),
            format!("{:.1} %", line.utilisation * 100.0),
            line.crashes.to_string(),
            line.failed.to_string(),
        ]);
    }
    numbers_right(&mut table, 1);
    print(&format!("{table}\n"))?;
    if arguments.csv.is_none() {
        print(&format!("\n{csv}"))?;
    }
    Ok(())
}

/// Returns one row for each simulation.
fn csv(rows: &[Row]) -> String {
    let mut text = String::from(
        "policy,agents_each,agents,seed,makespan_s,work_s,critical_path_s,tasks,completed,failed,attempts,\
         crashes,incidents,events,events_hash\n",
    );
    for row in rows {
        let (simulated, counts) = (&row.simulated, row.simulated.counts);
        writeln!(
            text,
            "{},{},{},{},{:.6},{:.6},{:.6},{},{},{},{},{},{},{},{:016x}",
            row.point.policy,
            row.point.agents.map(|agents| agents.to_string()).unwrap_or_default(),
            simulated.agents,
            row.seed,
            simulated.makespan.as_secs_f64(),
            simulated.work.as_secs_f64(),
            simulated.critical_path.as_secs_f64(),
            simulated.tasks,
            simulated.tally.completed,
            simulated.tally.failed,
            counts.attempts,
            counts.crashes,
            counts.incidents,
            counts.events,
            simulated.log_hash,
        )
        .ok();
    }
    text
}
