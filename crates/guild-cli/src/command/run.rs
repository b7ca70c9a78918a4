//! `guild run`: runs a flow, or resumes it, and prints what came of it.
//!
//! Everything that can be wrong is found before the store is touched. Then: lock the store's
//! directory, start the reaper, start the guild, submit, follow the events, sum up.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guild::process::{ProcessAgent, ProcessObserver};
use guild::{
    Drain, FaultPoint, Graph, GraphBuilder, Guild, LetterError, Limits, RestartPolicy, Run,
    RunReport, StartError, Storage, StoreError, SubmitError, TaskId, checkpoint, reader,
};

use guild_sim::plan::Scene;

use crate::agent::{FlowAgent, InnerAgent, Shared, process_spec};
use crate::args::{Format, RunArguments};
use crate::command::follow::{End, Follower};
use crate::command::history::HistoryFile;
use crate::command::store::outcome_name;
use crate::command::{check_output, letters, print};
use crate::exit_code::{CommandError, Exit};
use crate::faults::{self, Chaos};
use crate::flow::{FLOW_ROLE, Flow, INNER_AGENTS, RESULT_TASK, RoleKind};
use crate::graph;
use crate::reaper::{self, Reaper};
use crate::render::{Summary, Tasks};
use crate::summary::Fold;
use crate::tail::Tail;

/// Events kept in RAM for the reader that writes them to the file. A run of a million tasks has
/// some six million.
const EVENTS_IN_MEMORY_MAX: usize = 16 << 20;

/// Bytes of one task's input or output: a task that sums up a map sees all of its outputs.
const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What was asked for, checked.
struct Plan {
    flow: Arc<Flow>,
    run: String,
    graph: Graph,
    chaos: Option<(Chaos, Arc<dyn FaultPoint>)>,
    limits: Limits,
}

/// Runs the command.
pub(crate) fn run(arguments: &RunArguments) -> Result<Exit, CommandError> {
    let plan = plan(arguments)?;
    check_output("--events", arguments.events.as_deref(), &arguments.flow)?;
    check_output("--history", arguments.history.as_deref(), &arguments.flow)?;
    let lock = arguments.store.as_deref().map(lock_store).transpose()?;
    let mut letter = None;
    if let Some(store) = &arguments.store {
        check_store(store, &plan)?;
        letter = arguments.retry.as_deref().map(|name| letters::find(store, name)).transpose()?;
    }
    raise_open_files();
    let observer = start_reaper(&plan.flow, lock)?;
    let guild = start(arguments, &plan, observer)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(arguments, plan, letter, guild))
}

fn plan(arguments: &RunArguments) -> Result<Plan, CommandError> {
    let bad = |message: String| CommandError::BadInput(message);
    let flow = Flow::load(&arguments.flow, &arguments.settings, arguments.agents)?;
    let chaos = arguments.chaos.as_deref().map(|option| {
        let chaos = Chaos::read(option, arguments.only.as_deref())?;
        let point = chaos.point(arguments.seed, &scene(&flow), false)?;
        Ok::<_, CommandError>((chaos, point))
    });
    let chaos = chaos.transpose()?;
    let run = arguments.run.clone().unwrap_or_else(|| flow.name.clone());
    let mut limits = Limits::default();
    limits.events_in_memory_max = EVENTS_IN_MEMORY_MAX;
    limits.payload_bytes_max = PAYLOAD_BYTES_MAX;
    let (chars, max) = (run.chars().count(), limits.name_chars_max);
    if !(1..=max).contains(&chars) || run.contains(char::is_control) {
        return Err(bad(format!(
            "--run: `{}` is no name of a run; it has 1 to {max} characters, none of them a control \
             character (without --run it is the name of the flow, or of its file)",
            run.escape_debug()
        )));
    }
    let graph = graph::build(&flow, GraphBuilder::new(&run))
        .map_err(|error| bad(format!("{}: {error}", arguments.flow.display())))?;
    Ok(Plan { flow: Arc::new(flow), run, graph, chaos, limits })
}

/// Returns who can be chosen to be struck: not the inner agents, which in most flows have next to
/// nothing to do, so that a fault that chose one of them would never strike.
fn scene(flow: &Flow) -> Scene {
    Scene {
        roles: flow.roles.iter().map(|role| (role.name.clone(), role.agents)).collect(),
        tasks: flow.tasks.iter().map(|task| task.name.clone()).collect(),
    }
}

/// Locks the directory against a reaper that is still at work, and later runs against ours.
fn lock_store(store: &Path) -> Result<File, CommandError> {
    let failed = |doing| move |error| CommandError::from(StoreError::from_io(store, doing, &error));
    std::fs::create_dir_all(store).map_err(failed("create the directory"))?;
    reaper::lock(store)
        .map_err(failed("open the directory"))?
        .ok_or_else(|| CommandError::from(StoreError::Locked { path: store.to_owned(), pid: None }))
}

/// Finds out whether the store can be used for this run, before anything in it is changed.
fn check_store(store: &Path, plan: &Plan) -> Result<(), CommandError> {
    let view = match reader::read(store) {
        Ok(view) => view,
        Err(StoreError::Missing { .. }) => return Ok(()),
        // The start puts the newest checkpoint in its place and opens an incident.
        Err(StoreError::Corrupt { .. }) if checkpoint::list(store).is_ok_and(|c| !c.is_empty()) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let bad = |message: String| Err(CommandError::BadInput(message));
    for run in view.runs() {
        // A dead letter that is tried again is a run below that of its flow.
        let is_below = run.name.strip_prefix(&*plan.run).is_some_and(|rest| rest.starts_with('/'));
        if *run.name != *plan.run && !is_below && run.history.ended.is_none() {
            return bad(format!(
                "the store {} holds the unfinished run `{}`, whose tasks this flow does not know; \
                 finish it with its own flow, or choose another store",
                store.display(),
                run.name
            ));
        }
        if *run.name == *plan.run && *run.graph != plan.graph {
            return bad(format!(
                "the run `{}` in {} was started from another version of the flow or with other \
                 variables; give this one another name by --run, or restore the flow",
                run.name,
                store.display()
            ));
        }
    }
    Ok(())
}

/// Lets a hundred agents hold the pipes of their processes: three pipes and two descriptors each.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "limit on open files not raised");
    }
}

fn start_reaper(flow: &Flow, lock: Option<File>) -> Result<Observer, CommandError> {
    let runs_processes = flow.roles.iter().any(|role| role.kind != RoleKind::Render);
    if !runs_processes {
        return Ok(Observer { observer: Arc::new(()), mark: None, _lock: lock });
    }
    #[expect(clippy::disallowed_types, reason = "a mark that no other process has is wanted")]
    let nonce =
        std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let mark = format!("{}-{nonce:016x}", std::process::id());
    let reaper = Reaper::start(&mark, lock)?;
    Ok(Observer { observer: Arc::new(reaper), mark: Some(mark), _lock: None })
}

/// Who learns of process groups, and what marks them.
struct Observer {
    observer: Arc<dyn ProcessObserver>,
    mark: Option<String>,
    /// Held here when no reaper holds it.
    _lock: Option<File>,
}

fn start(
    arguments: &RunArguments,
    plan: &Plan,
    observer: Observer,
) -> Result<RunningGuild, CommandError> {
    let shared = Shared::new(
        plan.flow.clone(),
        plan.limits.clone(),
        observer.observer.clone(),
        observer.mark.clone(),
    );
    let storage = arguments.store.clone().map_or(Storage::Ram, Storage::Directory);
    let mut builder =
        Guild::builder().store(storage).seed(arguments.seed).limits(plan.limits.clone());
    let inner = shared.clone();
    builder = builder.role(FLOW_ROLE, INNER_AGENTS, move || InnerAgent(inner.clone()));
    for role in &plan.flow.roles {
        let shared = shared.clone();
        let spec = process_spec(&shared, role)
            .map_err(|error| CommandError::BadInput(error.to_string()))?;
        builder = builder.role_with(&role.name, role.agents, move |life| {
            let agent = |spec: &Arc<_>| {
                ProcessAgent::new(Arc::clone(spec), life).observed_by(shared.observer.clone())
            };
            FlowAgent { shared: shared.clone(), process: spec.as_ref().map(agent) }
        });
        if let Some(spec) = &role.supervision {
            builder = builder.supervise(&role.name, spec.clone());
        }
    }
    for group in &plan.flow.groups {
        builder = builder.group(&group.name, &group.members, group.supervisor.clone());
    }
    if let Some(spec) = &plan.flow.supervision {
        builder = builder.root(spec.clone());
    }
    for quota in &plan.flow.quotas {
        builder = builder.quota(&quota.name, quota.spec.clone());
    }
    for namespace in &plan.flow.namespaces {
        builder = builder.namespace(namespace.clone());
    }
    if let Some((_, point)) = &plan.chaos {
        // Injected crashes say nothing about an agent: it is restarted as often as it takes.
        let policy = RestartPolicy {
            intensity: u32::MAX,
            backoff_max: Duration::from_millis(100),
            ..RestartPolicy::default()
        };
        builder = builder.faults(Arc::clone(point)).restart(policy);
    }
    let history = arguments.history.as_deref().map(HistoryFile::create).transpose()?;
    if let Some(history) = history.clone() {
        builder = builder.record_histories(true).observe(move |r, names| history.take(r, names));
    }
    let guild = builder.start().map_err(|error| match error {
        StartError::Store(_) | StartError::Open(_) | StartError::Thread(_) => {
            CommandError::Store(error.to_string())
        }
        error => CommandError::BadInput(error.to_string()),
    })?;
    Ok(RunningGuild { guild, history, _observer: observer })
}

/// The guild, and what must live as long.
struct RunningGuild {
    guild: Guild,
    history: Option<HistoryFile>,
    _observer: Observer,
}

async fn supervise(
    arguments: &RunArguments,
    plan: Plan,
    letter: Option<TaskId>,
    running: RunningGuild,
) -> Result<Exit, CommandError> {
    let Plan { flow, graph, chaos, .. } = plan;
    let guild = &running.guild;
    let run = submit(guild, graph, letter).await?;
    let name = run.name();
    let needs_hash = arguments.format == Format::Json;
    let tail = Tail::new(arguments.events.as_deref(), needs_hash, Fold::new(run.id()))?;
    let mut follower = Follower::new(guild, &run, tail)?;
    let end = follower.until_end(&resume_hint(arguments)).await?;
    let messages = guild.stats().messages;
    if !follower.has_shut_down() {
        let drain = Drain::Until(Duration::from_secs(10));
        guild.shutdown(drain).await.map_err(|error| CommandError::Store(error.to_string()))?;
    }
    let tail = follower.finish().await?;
    let tail = complete(tail, arguments.store.as_deref())?;
    running.history.as_ref().map_or(Ok(()), HistoryFile::finish)?;
    let (report, exit) = match end {
        End::Ended(report) => {
            let completed = report.outcome() == guild::Outcome::Completed;
            (Some(report), if completed { Exit::Done } else { Exit::Failed })
        }
        End::Interrupted => (None, Exit::Interrupted),
        End::Failed(why) => {
            let hint = resume_hint(arguments);
            return Err(CommandError::Store(format!("{why}\n{hint}")));
        }
    };
    let summary = summarise(&flow, &run, report.as_deref(), &tail, messages, arguments.seed);
    match arguments.format {
        Format::Json => {
            print(&format!("{}\n", serde_json::to_string(&summary).map_err(io::Error::from)?))?
        }
        Format::Table => print(&summary.to_text(&name))?,
    }
    if let Some(report) = report.filter(|_| exit == Exit::Failed) {
        explain_failures(&report, &tail);
    }
    if let Some(store) = arguments.store.as_ref().filter(|_| tail.fold.incidents > 0) {
        eprintln!("guild: what went wrong meanwhile: guild incidents --store {}", store.display());
    }
    if exit == Exit::Interrupted || tail.has_gap {
        // What has not struck yet may still strike when the run is resumed, and what was not seen may
        // be among the events that nobody has read.
        return Ok(exit);
    }
    let chaos = chaos.as_ref().map(|(chaos, _)| chaos);
    Ok(faults::judge(chaos, &tail.struck, exit))
}

/// Submits the flow, or a task of it that has died.
async fn submit(guild: &Guild, graph: Graph, letter: Option<TaskId>) -> Result<Run, CommandError> {
    let bad = |error: &dyn std::fmt::Display| CommandError::BadInput(error.to_string());
    let failed = |error: SubmitError| match error {
        SubmitError::Graph(_) | SubmitError::Refused(_) => bad(&error),
        error => CommandError::Store(error.to_string()),
    };
    let Some(task) = letter else {
        return guild.submit(graph).await.map_err(failed);
    };
    guild.retry_letter(task).await.map_err(|error| match error {
        LetterError::Submit(error) => failed(error),
        error => bad(&error),
    })
}

/// Reads the log again from the store when events left RAM before they were read.
fn complete(mut tail: Tail, store: Option<&Path>) -> Result<Tail, CommandError> {
    if !tail.has_gap {
        return Ok(tail);
    }
    let Some(store) = store else {
        eprintln!("guild: the event log is incomplete: events came faster than they were written");
        return Ok(tail);
    };
    let view = reader::read(store)?;
    tail.restart()?;
    for record in view.events(1) {
        let record = record?;
        tail.take(&record, |record| guild::event_line(record, view.names()))?;
    }
    tail.flush()?;
    Ok(tail)
}

fn resume_hint(arguments: &RunArguments) -> String {
    let store: Option<&PathBuf> = arguments.store.as_ref();
    match store {
        Some(_) => "the same command again resumes the run".to_owned(),
        None => "without --store nothing is kept; the same command begins anew".to_owned(),
    }
}

fn summarise(
    flow: &Flow,
    run: &Run,
    report: Option<&RunReport>,
    tail: &Tail,
    messages: u64,
    seed: u64,
) -> Summary {
    let fold = &tail.fold;
    let tally = report.map_or_else(|| run.progress().ended, RunReport::tally);
    let tasks = Tasks {
        total: fold.added,
        completed: tally.completed.into(),
        failed: tally.failed.into(),
        skipped: tally.skipped.into(),
        cancelled: tally.cancelled.into(),
    };
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    let result = report.filter(|_| !flow.result.is_empty());
    Summary {
        outcome: report.map_or("interrupted", |report| outcome_name(report.outcome())),
        attempts: fold.attempts,
        agents: flow.agents(),
        incidents: fold.incidents,
        restarts: fold.restarts,
        makespan_s: seconds(report.map_or(fold.elapsed_us, RunReport::makespan_us)),
        critical_path_s: seconds(fold.critical_path_us),
        work_s: seconds(fold.work_us),
        messages_per_task: messages as f64 / (fold.ended_since_start.max(1) as f64),
        events: tail.events(),
        events_hash: tail.hash(),
        seed: fold.seed.unwrap_or(seed),
        result: result.and_then(|report| report.output(RESULT_TASK).ok()),
        result_order: flow.result.iter().map(|(name, _)| name.clone()).collect(),
        crashes: fold.crashes,
        faults: fold.faults,
        ended: fold.ended,
        tasks,
    }
}

fn explain_failures(report: &RunReport, tail: &Tail) {
    for (task, message) in &tail.failures {
        eprintln!("guild: task {task} of run {} failed: {message}", report.name());
    }
}
