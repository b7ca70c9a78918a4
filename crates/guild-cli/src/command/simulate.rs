//! `guild simulate`: runs a workload in virtual time, once or over a sweep, and prints what came of
//! it.
//!
//! Everything that can be wrong is found before anything is written.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use guild::EventRecord;
use guild_sim::report::Recorder;
use guild_sim::workload::{Workload, is_workflow, read_workflow};
use guild_sim::world::LogReader;
use guild_sim::{SimulateError, Simulated, Simulation, WorldError};

use crate::args::{Format, Policy, SimulateArguments};
use crate::command::report::{self, Shown};
use crate::command::store::outcome_name;
use crate::command::sweep::{self, Sweep};
use crate::command::verify;
use crate::command::{check_output, print};
use crate::exit_code::{CommandError, Exit};
use crate::faults::{self, Chaos, Struck};
use crate::flow::Flow;
use crate::progress::VirtualBar;
use crate::render::{Summary, Tasks};
use crate::workload::{DURATION_DEFAULT, FlowWorkload, workload};

/// Tasks without a duration that are named.
const NAMES_SHOWN_MAX: usize = 5;

/// Runs the command.
pub(crate) fn simulate(arguments: &SimulateArguments) -> Result<Exit, CommandError> {
    let (workload, without_duration) = load(arguments)?;
    let chaos = arguments.chaos.as_deref().map(|option| Chaos::read(option, None)).transpose()?;
    let chaos = chaos.as_ref();
    let simulation = simulation(arguments, &workload, chaos, arguments.agents, arguments.seed)?;
    simulation.check(&workload).map_err(|error| refused(arguments, &error))?;
    let sweep = Sweep::parse(arguments)?;
    let workflow = arguments.workflow.as_path();
    check_output("--events", arguments.events.as_deref(), workflow)?;
    check_output("--csv", arguments.csv.as_deref(), workflow)?;
    check_output("--report", arguments.report.as_deref(), workflow)?;
    tell_defaults(&without_duration);
    if !sweep.is_single() {
        return sweep::run(arguments, &workload, chaos, &sweep);
    }
    let bar = VirtualBar::new(workload.tasks.len() as u64);
    let mut readers: Vec<Box<dyn LogReader>> = vec![Box::new(bar.clone())];
    let file = arguments.events.as_deref().map(EventFile::create).transpose()?;
    readers.extend(file.iter().map(|file| Box::new(file.clone()) as Box<dyn LogReader>));
    let recorder = arguments.report.as_ref().map(|_| Recorder::default());
    readers.extend(recorder.iter().map(|own| Box::new(own.clone()) as Box<dyn LogReader>));
    let watch = verify::watch(arguments.validate);
    readers.extend(verify::reader(watch.as_ref()));
    let struck = Struck::default();
    readers.push(Box::new(struck.clone()));
    let simulated =
        simulation.run(&workload, readers).map_err(|error| refused(arguments, &error))?;
    bar.clear();
    if let Some(file) = file {
        file.close()?;
    }
    if let (Some(path), Some(recorder)) = (&arguments.report, recorder) {
        let (agents, policy, seed) = (arguments.agents, arguments.policy, arguments.seed);
        let shown = Shown { workload: &workload.name, simulated: &simulated, agents, policy, seed };
        report::write(path, &report::page(arguments, &shown, recorder.take(), Vec::new()))?;
    }
    let summary = summary(&simulated, arguments.seed);
    match arguments.format {
        Format::Json => {
            print(&format!("{}\n", serde_json::to_string(&summary).map_err(io::Error::from)?))?;
        }
        Format::Table => print(&summary.to_text(&workload.name))?,
    }
    verify::judge_simulation(watch.as_ref(), arguments.seed)?;
    Ok(faults::judge(chaos, &struck, exit(&simulated)))
}

/// Reads the workload, and which of its tasks say nothing about their duration: a workflow is JSON
/// or a gzip stream, a flow is anything else.
fn load(arguments: &SimulateArguments) -> Result<(Workload, Vec<String>), CommandError> {
    let path = &arguments.workflow;
    let bad = |message: String| CommandError::BadInput(format!("{}: {message}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| bad(format!("cannot read it: {error}")))?;
    if !is_workflow(&bytes) {
        let flow = Flow::load(path, &arguments.settings, None)?;
        let FlowWorkload { workload, without_duration } = workload(&flow)?;
        return Ok((workload, without_duration));
    }
    if !arguments.settings.is_empty() {
        return Err(
            bad("--set is for flow files; a WfFormat workflow has no variables".to_owned()),
        );
    }
    let workload = read_workflow(&bytes).map_err(|error| bad(error.to_string()))?;
    Ok((workload, Vec::new()))
}

/// Says which tasks last a second only because the flow says nothing.
fn tell_defaults(tasks: &[String]) {
    let shown = tasks.iter().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>();
    let more = match tasks.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if !tasks.is_empty() {
        eprintln!("guild: no `duration` for {}{more}: {DURATION_DEFAULT:?} each", shown.join(", "));
    }
}

/// Returns how the workload is simulated with this seed and so many agents, where they are asked for.
pub(crate) fn simulation(
    arguments: &SimulateArguments,
    workload: &Workload,
    chaos: Option<&Chaos>,
    agents: Option<u32>,
    seed: u64,
) -> Result<Simulation, CommandError> {
    let (order, validate) = (arguments.policy.order(), arguments.validate);
    let mut simulation = Simulation { agents, seed, order, validate, ..Simulation::default() };
    if let Some(chaos) = chaos {
        simulation.faults = Some(chaos.point(seed, &simulation.scene(workload), true)?);
    }
    Ok(simulation)
}

/// Returns the error that names the workload. A planner that is validated fails the run when it
/// breaks one of its invariants.
pub(crate) fn refused(arguments: &SimulateArguments, error: &SimulateError) -> CommandError {
    if arguments.validate && matches!(error, SimulateError::World(WorldError::Run(_))) {
        return CommandError::Violated(format!("{}: {error}", arguments.workflow.display()));
    }
    CommandError::BadInput(format!("{}: {error}", arguments.workflow.display()))
}

/// Returns how the command ends for this outcome.
pub(crate) fn exit(simulated: &Simulated) -> Exit {
    match simulated.outcome {
        guild::Outcome::Completed => Exit::Done,
        guild::Outcome::Failed | guild::Outcome::Cancelled => Exit::Failed,
    }
}

/// Returns the summary of one simulation.
pub(crate) fn summary(simulated: &Simulated, seed: u64) -> Summary {
    let counts = simulated.counts;
    Summary {
        outcome: outcome_name(simulated.outcome),
        tasks: Tasks {
            total: simulated.tasks,
            completed: simulated.tally.completed.into(),
            failed: simulated.tally.failed.into(),
            skipped: simulated.tally.skipped.into(),
            cancelled: simulated.tally.cancelled.into(),
        },
        attempts: counts.attempts,
        agents: simulated.agents,
        incidents: counts.incidents,
        restarts: counts.restarts,
        makespan_s: simulated.makespan.as_secs_f64(),
        critical_path_s: simulated.critical_path.as_secs_f64(),
        work_s: simulated.work.as_secs_f64(),
        messages_per_task: simulated.messages as f64 / simulated.tasks.max(1) as f64,
        events: counts.events,
        events_hash: format!("{:016x}", simulated.log_hash),
        seed,
        result: None,
        result_order: Vec::new(),
        crashes: counts.crashes,
        faults: counts.faults,
        ended: simulated.tasks,
    }
}

impl Policy {
    /// Returns the order that the policy stands for.
    pub(crate) fn order(self) -> guild::ReadyOrder {
        match self {
            Self::CriticalPath => guild::ReadyOrder::CriticalPath,
            Self::Fifo => guild::ReadyOrder::Fifo,
            Self::Random => guild::ReadyOrder::Random,
        }
    }
}

/// The file of an event log; every clone is the same file.
#[derive(Clone)]
pub(crate) struct EventFile(Arc<Mutex<io::Result<BufWriter<File>>>>);

impl EventFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 16, File::create(path)?);
        Ok(Self(Arc::new(Mutex::new(Ok(file)))))
    }

    /// Returns the first error of writing, if there was one.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *file {
            Ok(file) => file.flush(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl LogReader for EventFile {
    fn record(&mut self, _: &EventRecord, line: &str) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(open) = &mut *file
            && let Err(error) = open.write_all(line.as_bytes()).and_then(|()| open.write_all(b"\n"))
        {
            *file = Err(error);
        }
    }
}
