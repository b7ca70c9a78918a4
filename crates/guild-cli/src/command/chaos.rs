//! `guild chaos`: plays a fault plan in virtual time, for one seed or many, and judges it.

mod real;
mod show;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use guild::Seed;
use guild_sim::chaos::{Batch, BatchEnd, ChaosRun, Checks, Experiment, Violated};
use guild_sim::plan::{Case, Plan, Source};
use guild_sim::workload::{Workload, read_workflow};
use guild_sim::world::LogReader;

use crate::args::{ChaosArguments, Format};
use crate::command::simulate::EventFile;
use crate::command::{check_output, print};
use crate::exit_code::{CommandError, Exit};
use crate::faults::{bad_plan, never, parse_case, read_plan};
use crate::flow::Flow;
use crate::progress::CountBar;
use crate::workload::workload;

/// Runs the command.
pub(crate) fn chaos(arguments: &ChaosArguments) -> Result<Exit, CommandError> {
    let (plan, text) = read_plan(&arguments.plan)?;
    let loaded = load(&plan)?;
    let experiment = Experiment::new(plan, &text, loaded).map_err(|error| bad_plan(&error))?;
    let case = arguments.only.as_deref().map(parse_case).transpose()?;
    check_case(case.as_ref(), experiment.plan())?;
    check_output("--events", arguments.events.as_deref(), &arguments.plan)?;
    check_output("--result", arguments.result.as_deref(), &arguments.plan)?;
    if arguments.real {
        return real::real(arguments, &experiment, &text, case.as_ref());
    }
    match arguments.seeds {
        None => one(arguments, &experiment, case.as_ref()),
        Some(seeds) => many(arguments, &experiment, seeds),
    }
}

/// Reads the workload of a plan that names a file.
fn load(plan: &Plan) -> Result<Option<Workload>, CommandError> {
    let bad = |path: &Path, why: String| {
        CommandError::BadInput(
            plan.error("workload", format!("{}: {why}", path.display())).to_string(),
        )
    };
    match &plan.workload.source {
        Source::Shape { .. } => Ok(None),
        Source::Workflow(path) => {
            let bytes = std::fs::read(path)
                .map_err(|error| bad(path, format!("cannot read it: {error}")))?;
            read_workflow(&bytes).map(Some).map_err(|error| bad(path, error.to_string()))
        }
        Source::Flow(path) => Ok(Some(workload(&Flow::load(path, &[], None)?)?.workload)),
    }
}

fn check_case(case: Option<&Case>, plan: &Plan) -> Result<(), CommandError> {
    let beyond = case.and_then(|case| case.methods.iter().find(|n| **n >= plan.methods.len()));
    match beyond {
        None => Ok(()),
        Some(n) => Err(CommandError::BadInput(format!(
            "--only: there is no fault {n}: the plan has {}, counted from 0",
            plan.methods.len()
        ))),
    }
}

/// Plays one seed.
fn one(
    arguments: &ChaosArguments,
    experiment: &Experiment,
    case: Option<&Case>,
) -> Result<Exit, CommandError> {
    let seed = arguments.seed.map_or(experiment.plan().seed, Seed);
    let file = arguments.events.as_deref().map(EventFile::create).transpose()?;
    let readers = file.iter().map(|file| Box::new(file.clone()) as Box<dyn LogReader>).collect();
    let run = experiment.run(seed, case, Checks::ALL, readers).map_err(|error| bad_plan(&error))?;
    if let Some(file) = file {
        file.close()?;
    }
    write_result(arguments, &run)?;
    let unseen = if case.is_some() { Vec::new() } else { show::unseen(experiment.plan(), &run) };
    match arguments.format {
        Format::Json => print(&format!("{}\n", json(&run.result)?))?,
        Format::Table => print(&show::run(experiment.plan(), &run))?,
    }
    let violated = run.result.violated().next().is_some();
    if violated && case.is_none() {
        let small = batch(arguments, experiment, 1)
            .shrink(experiment, run)
            .map_err(|error| bad_plan(&error))?;
        eprint_lines(&show::small(&small));
    }
    eprint_lines(&never(&unseen));
    Ok(if violated || !unseen.is_empty() { Exit::Violated } else { Exit::Done })
}

/// Plays many seeds on all cores, up to the first violation.
fn many(
    arguments: &ChaosArguments,
    experiment: &Experiment,
    seeds: u64,
) -> Result<Exit, CommandError> {
    let bar = CountBar::new(seeds);
    let batch = batch(arguments, experiment, seeds);
    let end = batch.play(experiment, || bar.step()).map_err(|error| bad_plan(&error))?;
    bar.clear();
    let BatchEnd { violated, coverage, .. } = &end;
    if let Some(Violated { run, small }) = violated {
        write_result(arguments, small.as_ref().map_or(run, |(_, small)| small))?;
    } else if let Some(path) = &arguments.result {
        std::fs::write(path, format!("{}\n", show::batch_json(experiment.plan(), &batch, &end)))?;
    }
    match arguments.format {
        Format::Json => print(&format!("{}\n", show::batch_json(experiment.plan(), &batch, &end)))?,
        Format::Table => print(&show::batch(experiment.plan(), &batch, &end))?,
    }
    if let Some(violated) = violated {
        eprint_lines(&show::small(violated));
        return Ok(Exit::Violated);
    }
    let unseen = show::unseen_of(experiment.plan(), coverage);
    eprint_lines(&never(&unseen));
    Ok(if unseen.is_empty() { Exit::Done } else { Exit::Violated })
}

fn batch(arguments: &ChaosArguments, experiment: &Experiment, seeds: u64) -> Batch {
    Batch {
        first: arguments.seed.unwrap_or(experiment.plan().seed.0),
        seeds,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        trials_max: TRIALS_MAX,
    }
}

/// Smaller cases that are tried.
const TRIALS_MAX: u32 = 500;

fn write_result(arguments: &ChaosArguments, run: &ChaosRun) -> Result<(), CommandError> {
    if let Some(path) = &arguments.result {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{}", run.result.to_json().map_err(io::Error::from)?)?;
        file.flush()?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String, CommandError> {
    Ok(serde_json::to_string(value).map_err(io::Error::from)?)
}

#[expect(clippy::print_stderr, reason = "messages go to standard error")]
fn eprint_lines(text: &str) {
    eprint!("{text}");
}
