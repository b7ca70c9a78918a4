//! `guild chaos --real`: the same plan against a real process with a real store.
//!
//! `guild run` performs the plan's flow, or one made of its workload, in a child. The child is
//! killed with SIGKILL when its event log reaches the planned events and started again on the same
//! store; what it had told must still be so afterwards, and the store must agree with it.

mod subject;
mod verdict;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use guild::{Seed, Timestamp};
use guild_sim::chaos::Experiment;
use guild_sim::checker::Invariant;
use guild_sim::plan::{Case, Drawn, Hit, Kind, Method, Plan, PlanError, Scene, Site, Striker};
use serde::Deserialize;

use self::subject::Subject;
use crate::args::ChaosArguments;
use crate::exit_code::{CommandError, Exit};
use crate::faults::{bad_plan, strikes_inside};

/// Longest silence of a child; then it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Name of the run.
const RUN: &str = "chaos";

/// A plan against a process.
struct Real<'a> {
    experiment: &'a Experiment,
    /// What the plan was read from.
    text: &'a str,
    /// The part that was asked for, unless all.
    only: Option<&'a Case>,
    drawn: Drawn,
    subject: Subject,
    striker: Striker,
    /// The part of the plan that the child carries out itself.
    inside: Option<Case>,
    folder: PathBuf,
    /// The joined log.
    log: Vec<String>,
    kills: Vec<u64>,
    violations: Vec<(String, String)>,
    /// Whether the process came to the end of the run.
    has_ended: bool,
}

/// The fields of an event that this harness looks at.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    at_us: u64,
    kind: String,
}

/// Runs the command; `text` is what the plan was read from.
pub(super) fn real(
    arguments: &ChaosArguments,
    experiment: &Experiment,
    text: &str,
    only: Option<&Case>,
) -> Result<Exit, CommandError> {
    let plan = experiment.plan();
    let whole = plan.draw(arguments.seed.map_or(plan.seed, Seed));
    let drawn = only.map_or_else(|| whole.clone(), |case| whole.reduce(case));
    let kept = |keeps: &dyn Fn(&Method) -> bool| -> BTreeSet<usize> {
        drawn.case.methods.iter().copied().filter(|n| keeps(&plan.methods[*n])).collect()
    };
    let inside = kept(&strikes_inside);
    let kills = kept(&|method| method.kind == Kind::Kill);
    if inside.is_empty() && kills.is_empty() {
        return Err(nothing_left(plan, &drawn.case));
    }
    let workload = experiment.workload(&drawn).map_err(|error| bad_plan(&error))?;
    let scene = Scene {
        roles: workload.roles.iter().map(|r| (r.name.clone(), r.agents.unwrap_or(1))).collect(),
        tasks: workload.tasks.iter().map(|task| task.name.clone()).collect(),
    };
    let of_process = drawn.reduce(&Case { methods: kills, ..drawn.case.clone() });
    let folder = Folder::new()?;
    let subject = Subject::new(&plan.workload.source, &workload, &drawn, &folder.0)?;
    let mut real = Real {
        experiment,
        text,
        only,
        striker: Striker::new(&of_process, &scene),
        inside: (!inside.is_empty()).then(|| Case { methods: inside, ..drawn.case.clone() }),
        drawn,
        subject,
        folder: folder.0.clone(),
        log: Vec::new(),
        kills: Vec::new(),
        violations: Vec::new(),
        has_ended: false,
    };
    let started = now();
    real.run(&arguments.plan)?;
    real.tell(arguments, started.elapsed())
}

/// Returns the error about a plan, or a part of one, of which a real process can show nothing.
fn nothing_left(plan: &Plan, case: &Case) -> CommandError {
    let wrong = |n: usize| {
        let method = &plan.methods[n];
        let why = match method.site {
            Site::Commit | Site::Sync => "strikes the store, which is a real one on a real disk",
            _ => "is done to the whole guild from outside, in virtual time",
        };
        let name = method.kind.name();
        let message = format!("`{name}` {why}: only a simulation can do it, without --real");
        plan.error(&format!("method[{n}].fault"), message).problems
    };
    let problems: Vec<_> = case.methods.iter().flat_map(|n| wrong(*n)).collect();
    if problems.is_empty() {
        return CommandError::BadInput("--only: names no fault that --real could show".to_owned());
    }
    bad_plan(&PlanError { file: plan.file.clone(), problems })
}

#[expect(clippy::disallowed_methods, reason = "how long a real process takes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// A directory that goes with the run.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path =
            |n: u32| std::env::temp_dir().join(format!("guild-chaos-{}-{n}", std::process::id()));
        let mut n = 0;
        // A directory that is there already belongs to another run, perhaps of before.
        let path = loop {
            match fs::create_dir(path(n)) {
                Ok(()) => break path(n),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => n += 1,
                Err(error) => return Err(error),
            }
        };
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a directory of chaos is left behind");
        }
    }
}

impl Real<'_> {
    /// Lives of the process, until the run has ended.
    fn run(&mut self, plan: &Path) -> Result<(), CommandError> {
        loop {
            let mut child = self.start(plan)?;
            let lines = read_lines(&mut child)?;
            let killed = self.follow(&mut child, &lines)?;
            let status = child.wait()?;
            match (killed, status.code()) {
                (true, _) => {}
                (false, Some(0 | 1)) => {
                    self.has_ended = true;
                    return Ok(());
                }
                (false, Some(2)) if self.log.is_empty() => return Err(self.refused()),
                (false, code) => {
                    let code = code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
                    let why = format!("guild run ended {code}: {}", self.stderr());
                    self.violated(Invariant::I9.name(), why);
                    return Ok(());
                }
            }
        }
    }

    /// Returns what the child said against what it was given.
    fn refused(&self) -> CommandError {
        let stderr = self.stderr();
        CommandError::BadInput(stderr.strip_prefix("guild: ").unwrap_or(&stderr).to_owned())
    }

    fn stderr(&self) -> String {
        let text = fs::read_to_string(self.folder.join("stderr")).unwrap_or_default();
        text.trim().to_owned()
    }

    fn start(&self, plan: &Path) -> Result<Child, CommandError> {
        let stderr = fs::File::create(self.folder.join("stderr"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("run")
            .arg(self.subject.file())
            .args(["--run", RUN])
            .arg("--store")
            .arg(self.folder.join("store"))
            .args(["--events", "/dev/stdout", "--format", "json"])
            .args(["--seed", &self.drawn.seed.0.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr);
        if let (Subject::Flow(_), Some(agents)) = (&self.subject, self.drawn.agents) {
            command.args(["--agents", &agents.to_string()]);
        }
        if let Some(case) = &self.inside {
            command.arg("--chaos").arg(plan).args(["--only", &case.to_string()]);
        }
        Ok(command.spawn()?)
    }

    /// Reads what a life tells until it ends; kills it when the plan says so.
    fn follow(
        &mut self,
        child: &mut Child,
        lines: &Receiver<String>,
    ) -> Result<bool, CommandError> {
        let mut killed = false;
        loop {
            let text = match lines.recv_timeout(SILENCE_MAX) {
                Ok(text) => text,
                Err(RecvTimeoutError::Disconnected) => return Ok(killed),
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    let why = format!("guild run was silent for {SILENCE_MAX:?}");
                    self.violated(Invariant::I12.name(), why);
                    return Ok(false);
                }
            };
            let Ok(line) = serde_json::from_str::<Line>(&text) else { continue };
            let is_new = self.take(&line, text);
            let hit = Hit { site: Site::Process, agent: None, task: None, event_seq: line.seq };
            let ended = line.kind == "run_ended";
            if is_new
                && !killed
                && !ended
                && self.striker.strike(Timestamp(line.at_us), &hit).is_some()
            {
                child.kill()?;
                self.kills.push(line.seq);
                killed = true;
            }
        }
    }

    /// Takes note of a promise that is broken.
    fn violated(&mut self, id: &str, why: String) {
        self.violations.push((id.to_owned(), why));
    }

    /// Joins a line to the log; returns whether it is a new one.
    fn take(&mut self, line: &Line, text: String) -> bool {
        let place = usize::try_from(line.seq).unwrap_or(usize::MAX).saturating_sub(1);
        match self.log.get(place) {
            Some(told) if *told == text => false,
            Some(told) => {
                let why = format!("event {} was told as {told} and is now {text}", line.seq);
                self.violated(Invariant::I9.name(), why);
                false
            }
            None => {
                self.log.push(text);
                true
            }
        }
    }
}

/// Reads the lines of a child on a thread of its own; the channel ends with the child.
fn read_lines(child: &mut Child) -> Result<Receiver<String>, CommandError> {
    let stdout = child.stdout.take().ok_or_else(|| {
        CommandError::Output(std::io::Error::other("the child has no standard output"))
    })?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let read = BufReader::new(stdout).lines().map_while(Result::ok);
        // A line that is cut off was not told.
        read.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
    });
    Ok(lines)
}
