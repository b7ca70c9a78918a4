//! `guild chaos --real`: the same plan against a real process with a real store.
//!
//! `guild run` performs the plan's flow, or one made of its workload, in a child. The child is
//! killed with SIGKILL when its event log reaches the planned events and started again on the same
//! store; what it had told must still be so afterwards, and the store must agree with it.

mod subject;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use guild::{Seed, Timestamp};
use guild_sim::chaos::{Experiment, STEADY_STATE};
use guild_sim::checker::{Checker, Invariant, Knowledge};
use guild_sim::plan::{Case, Drawn, Hit, Kind, PlanResult, Scene, Site, Striker};
use serde::Deserialize;

use self::subject::Subject;
use crate::args::{ChaosArguments, Format};
use crate::command::print;
use crate::exit_code::{CommandError, Exit};
use crate::render::table;

/// Longest silence of a child; then it hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Name of the run.
const RUN: &str = "chaos";

/// Verdicts that count whatever a plan asks for.
const KEPT: [&str; 2] = [Invariant::I12.name(), STEADY_STATE];

/// A plan against a process.
struct Real<'a> {
    experiment: &'a Experiment,
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
}

/// The fields of an event that this harness looks at.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    at_us: u64,
    kind: String,
}

/// Runs the command.
pub(super) fn real(
    arguments: &ChaosArguments,
    experiment: &Experiment,
    case: Option<&Case>,
) -> Result<Exit, CommandError> {
    let plan = experiment.plan();
    let bad = |error: guild_sim::plan::PlanError| CommandError::BadInput(error.to_string());
    let seed = arguments.seed.map_or(plan.seed, Seed);
    let whole = plan.draw(seed);
    let drawn = case.map_or_else(|| whole.clone(), |case| whole.reduce(case));
    let is_inside = |n: &usize| {
        let site = plan.methods[*n].site;
        !matches!(site, Site::Process | Site::Commit | Site::Sync)
    };
    let is_kill = |n: &usize| plan.methods[*n].kind == Kind::Kill;
    let kept = |keeps: &dyn Fn(&usize) -> bool| -> BTreeSet<usize> {
        drawn.case.methods.iter().copied().filter(|n| keeps(n)).collect()
    };
    let (inside, kills) = (kept(&is_inside), kept(&is_kill));
    if kills.is_empty() {
        return Err(bad(plan.error("method", "--real needs a `kill`: the plan has none")));
    }
    let workload = experiment.workload(&drawn).map_err(bad)?;
    let scene = Scene {
        roles: workload.roles.iter().map(|r| (r.name.clone(), r.agents.unwrap_or(1))).collect(),
        tasks: workload.tasks.iter().map(|task| task.name.clone()).collect(),
    };
    let of_process = drawn.reduce(&Case { methods: kills, ..drawn.case.clone() });
    let folder = Folder::new()?;
    let subject = Subject::new(&plan.workload.source, &workload, &drawn, &folder.0)?;
    let mut real = Real {
        experiment,
        striker: Striker::new(&of_process, &scene),
        inside: (!inside.is_empty()).then(|| Case { methods: inside, ..drawn.case.clone() }),
        drawn,
        subject,
        folder: folder.0.clone(),
        log: Vec::new(),
        kills: Vec::new(),
        violations: Vec::new(),
    };
    real.run(&arguments.plan)?;
    real.tell(arguments)
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
                (false, Some(0 | 1)) => return Ok(()),
                (false, Some(2)) if self.log.is_empty() => return Err(self.refused()),
                (false, code) => {
                    let code = code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
                    let why = format!("guild run ended {code}: {}", self.stderr());
                    self.violations.push((Invariant::I9.name().to_owned(), why));
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
                    self.violations.push((Invariant::I12.name().to_owned(), why));
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

    /// Joins a line to the log; returns whether it is a new one.
    fn take(&mut self, line: &Line, text: String) -> bool {
        let place = usize::try_from(line.seq).unwrap_or(usize::MAX).saturating_sub(1);
        match self.log.get(place) {
            Some(told) if *told == text => false,
            Some(told) => {
                let why = format!("event {} was told as {told} and is now {text}", line.seq);
                self.violations.push((Invariant::I9.name().to_owned(), why));
                false
            }
            None => {
                self.log.push(text);
                true
            }
        }
    }

    /// Judges the joined log and prints what came of it.
    fn tell(mut self, arguments: &ChaosArguments) -> Result<Exit, CommandError> {
        let mut checker = Checker::new();
        self.log.iter().for_each(|line| checker.line(line));
        let knowledge = Knowledge {
            is_complete: self.violations.is_empty(),
            ledger: self.subject.effects(),
            ..Knowledge::default()
        };
        let verdict = checker.finish_with(&knowledge);
        if let Some(broken) = &verdict.broken {
            self.violations.push((
                Invariant::I1.name().to_owned(),
                format!("the event log is broken: {broken}"),
            ));
        }
        for (id, violation) in verdict.violations() {
            let why = format!("line {}: {}", violation.line, violation.message);
            self.violations.push((id.name().to_owned(), why));
        }
        self.check_counts()?;
        if let Some(path) = &arguments.events {
            fs::write(path, self.log.join("\n") + "\n")?;
        }
        let plan = self.experiment.plan();
        let asked = &plan.steady_state.invariants;
        self.violations
            .retain(|(id, _)| asked.is_empty() || asked.contains(id) || KEPT.contains(&&**id));
        let left_out: Vec<&str> = plan
            .methods
            .iter()
            .filter(|m| m.kind != Kind::Kill)
            .filter(|m| matches!(m.site, Site::Process | Site::Commit | Site::Sync))
            .map(|m| m.kind.name())
            .collect();
        let result = serde_json::json!({
            "plan": plan.title,
            "seed": self.drawn.seed.0,
            "version": env!("CARGO_PKG_VERSION"),
            "killed_at_events": self.kills,
            "left_out": left_out,
            "events": self.log.len(),
            "verdicts": self.violations,
            "repeat": format!("guild chaos --real {} --seed {}", plan.file.display(), self.drawn.seed.0),
        });
        if let Some(path) = &arguments.result {
            fs::write(path, format!("{result}\n"))?;
        }
        match arguments.format {
            Format::Json => print(&format!("{result}\n"))?,
            Format::Table => print(&self.text(&left_out))?,
        }
        let unseen = self.kills.is_empty();
        if unseen {
            super::eprint_lines("guild: nothing was killed: the plan has not shown what it says\n");
        }
        Ok(if self.violations.is_empty() && !unseen { Exit::Done } else { Exit::Violated })
    }

    /// Compares what the log tells with what the store holds, and with the effects outside where
    /// they are known; and whether as many tasks completed as the plan asks for.
    fn check_counts(&mut self) -> Result<(), CommandError> {
        let told = self.log.iter().filter(|line| line.contains(r#""kind":"task_completed""#));
        let told = told.count();
        let view = guild::reader::read(self.folder.join("store"))?;
        let run = view.runs().iter().find(|run| &*run.name == RUN);
        let (tasks, held) = run.map_or((0, 0), |run| {
            (run.tasks(), run.outputs.iter().filter(|output| output.is_some()).count())
        });
        if held != told {
            let why = format!("{told} tasks were told to be completed, the store holds {held}");
            self.violations.push((Invariant::I2.name().to_owned(), why));
        }
        if let Some(effects) = self.subject.effects() {
            let counter = view.snapshot().get(subject::COUNTER.as_bytes());
            let counter = counter.map_or(0, |entry| {
                String::from_utf8_lossy(&entry.value).trim().parse().unwrap_or(usize::MAX)
            });
            let outside = effects.len();
            if counter != told || outside < told {
                let why = format!(
                    "{told} tasks completed, the memory counts {counter}, {outside} had their effect"
                );
                self.violations.push((Invariant::I3.name().to_owned(), why));
            }
        }
        let percent = self.experiment.plan().steady_state.completed_min_percent;
        if told * 100 < tasks * percent as usize {
            let why = format!("{told} of {tasks} tasks completed, fewer than {percent} %");
            self.violations.push((STEADY_STATE.to_owned(), why));
        }
        Ok(())
    }

    fn text(&self, left_out: &[&str]) -> String {
        let plan = self.experiment.plan();
        let mut text = format!("{}, seed {}, with a real process\n", plan.title, self.drawn.seed.0);
        let kills: Vec<String> = self.kills.iter().map(ToString::to_string).collect();
        writeln!(text, "killed with SIGKILL at events {}", kills.join(", ")).ok();
        if !left_out.is_empty() {
            writeln!(text, "left out, for only a simulation can do it: {}", left_out.join(", "))
                .ok();
        }
        let mut verdicts = table(&["invariant", "verdict"]);
        for (id, why) in &self.violations {
            verdicts.add_row([id, why]);
        }
        if self.violations.is_empty() {
            verdicts.add_row(["all", PlanResult::HOLDS]);
        }
        writeln!(text, "{verdicts}\n{} events in the joined log", self.log.len()).ok();
        text
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
