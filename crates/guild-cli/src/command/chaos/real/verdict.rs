//! Judges the joined log of a real process, and tells what came of it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::time::Duration;

use guild_core::event::{LineEvent, parse_line};
use guild_sim::chaos::STEADY_STATE;
use guild_sim::checker::{Checker, Invariant, Knowledge, Ruling, Verdict};
use guild_sim::plan::{FiredFault, IncidentNote, Kind, Method, PlanResult};

use super::{RUN, Real, subject};
use crate::args::{ChaosArguments, Format};
use crate::command::chaos::{eprint_lines, show};
use crate::command::print;
use crate::exit_code::{CommandError, Exit};
use crate::faults::{Struck, fault, never, strikes_inside};
use crate::render::table;

/// Verdicts that count whatever a plan asks for.
const KEPT: [&str; 3] = [Invariant::I9.name(), Invariant::I12.name(), STEADY_STATE];

/// What the joined log tells beside what the checkers see.
#[derive(Default)]
struct Told {
    struck: Struck,
    faults: Vec<FiredFault>,
    incidents: Vec<IncidentNote>,
    last: Duration,
}

impl Real<'_> {
    /// Judges the joined log and prints what came of it.
    pub(super) fn tell(
        mut self,
        arguments: &ChaosArguments,
        took: Duration,
    ) -> Result<Exit, CommandError> {
        let verdict = self.judge()?;
        if let Some(path) = &arguments.events {
            fs::write(path, self.log.join("\n") + "\n")?;
        }
        let told = self.told();
        let fired = self.fired(&told.struck);
        let plan = self.experiment.plan();
        let mut result = PlanResult::new(plan, self.text, self.drawn.seed, self.only, &fired);
        result.repeat = result.repeat.replacen("guild chaos", "guild chaos --real", 1);
        result.verdicts = self.verdicts(&verdict);
        result.events_hash = format!("{:016x}", verdict.log_hash);
        (result.faults, result.incidents) = (told.faults, told.incidents);
        result.times(told.last, took);
        let unseen: Vec<String> = self.unseen(&fired).into_iter().map(|n| fault(plan, n)).collect();
        let json = self.json(&result, &unseen)?;
        if let Some(path) = &arguments.result {
            fs::write(path, format!("{json}\n"))?;
        }
        match arguments.format {
            Format::Json => print(&format!("{json}\n"))?,
            Format::Table => print(&self.table(&result, &fired))?,
        }
        eprint_lines(&never(&unseen));
        let is_clean = result.violated().next().is_none() && unseen.is_empty();
        Ok(if is_clean { Exit::Done } else { Exit::Violated })
    }

    /// Has the checkers read the joined log, and compares it with the store.
    fn judge(&mut self) -> Result<Verdict, CommandError> {
        let mut checker = Checker::new();
        self.log.iter().for_each(|line| checker.line(line));
        let verdict = checker.finish_with(&Knowledge {
            is_complete: self.violations.is_empty(),
            ledger: self.subject.effects(),
            ..Knowledge::default()
        });
        if let Some(broken) = &verdict.broken {
            self.violated(Invariant::I1.name(), format!("the event log is broken: {broken}"));
        }
        self.check_counts()?;
        Ok(verdict)
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
            self.violated(Invariant::I2.name(), why);
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
                self.violated(Invariant::I3.name(), why);
            }
        }
        let percent = self.experiment.plan().steady_state.completed_min_percent;
        if told * 100 < tasks * percent as usize {
            let why = format!("{told} of {tasks} tasks completed, fewer than {percent} %");
            self.violated(STEADY_STATE, why);
        }
        Ok(())
    }

    /// Returns the verdicts that the plan asks for, and those that count in any case: what a checker
    /// sees in the log, or else what was seen around it. Of a run without an end, or with a log that
    /// cannot be read, every violation counts.
    fn verdicts(&self, verdict: &Verdict) -> Vec<(String, String)> {
        let asked = &self.experiment.plan().steady_state.invariants;
        let ruled = verdict.rulings.iter().map(|(id, ruling)| match ruling {
            Ruling::Holds { .. } => (id.name(), PlanResult::HOLDS.to_owned()),
            Ruling::NotJudged { .. } | Ruling::Violated { .. } => (id.name(), ruling.to_string()),
        });
        let steady = (STEADY_STATE, PlanResult::HOLDS.to_owned());
        let judged = ruled.chain([steady]).map(|(id, ruling)| {
            let own = self.violations.iter().find(|(violated, _)| violated == id);
            match own.filter(|_| !ruling.starts_with("violated")) {
                Some((_, why)) => (id.to_owned(), format!("violated: {why}")),
                None => (id.to_owned(), ruling),
            }
        });
        let keeps_all = !self.has_ended || verdict.broken.is_some();
        let counts = |(id, ruling): &(String, String)| {
            let is_kept = ruling.starts_with("violated") && (keeps_all || KEPT.contains(&&**id));
            asked.is_empty() || asked.contains(id) || is_kept || id == STEADY_STATE
        };
        judged.filter(counts).collect()
    }

    fn told(&self) -> Told {
        let mut told = Told::default();
        for line in self.log.iter().filter_map(|line| parse_line(line).ok()) {
            told.last = Duration::from_micros(line.at_us);
            match line.event {
                LineEvent::FaultInjected { fault, r#type, site, agent, task, .. } => {
                    told.struck.note(&r#type, &site);
                    let of_it = |n: &usize| {
                        let method = &self.experiment.plan().methods[*n];
                        method.kind.name() == &*r#type && method.site.name() == &*site
                    };
                    let Some(method) = self.drawn.case.methods.iter().copied().find(of_it) else {
                        continue;
                    };
                    told.faults.push(FiredFault {
                        fault,
                        r#type: r#type.to_string(),
                        site: site.to_string(),
                        method,
                        event: line.seq,
                        agent: agent.and_then(|agent| agent.parse().ok()),
                        task: task.map(|task| task.task.to_string()),
                    });
                }
                LineEvent::IncidentOpened { incident, r#type, fault, .. } => {
                    let (r#type, event) = (r#type.to_string(), line.seq);
                    told.incidents.push(IncidentNote { incident, r#type, event, fault });
                }
                _ => {}
            }
        }
        told
    }

    /// Returns how often each fault of the plan struck: a kill when it was done, what strikes inside
    /// of the process when the log tells it.
    fn fired(&self, struck: &Struck) -> Vec<u64> {
        let kills = self.striker.fired();
        let of = |(n, method): (usize, &Method)| match method.kind {
            _ if !self.drawn.case.methods.contains(&n) => 0,
            Kind::Kill => kills[n],
            _ => struck.times(method),
        };
        self.experiment.plan().methods.iter().enumerate().map(of).collect()
    }

    /// Returns the faults that should have struck and have not. A part of a plan promises nothing.
    fn unseen(&self, fired: &[u64]) -> Vec<usize> {
        if self.only.is_some() {
            return Vec::new();
        }
        let methods = &self.experiment.plan().methods;
        let is_due = |n: &usize| methods[*n].kind == Kind::Kill || strikes_inside(&methods[*n]);
        let kept = self.drawn.case.methods.iter().copied();
        kept.filter(|n| is_due(n) && fired[*n] == 0).collect()
    }

    /// Returns what only a simulation can carry out: kinds of faults, and keys of the workload.
    fn left_out(&self) -> Vec<&'static str> {
        let is_left_out = |method: &&Method| method.kind != Kind::Kill && !strikes_inside(method);
        let plan = self.experiment.plan();
        let errors = &plan.workload.errors;
        let errs = errors.retryable.is_some() || errors.fatal.is_some();
        let keys = [(errs, "errors"), (plan.workload.cancel_at.is_some(), "cancel_at")];
        let keys = keys.into_iter().filter_map(|(is_there, key)| is_there.then_some(key));
        let methods = plan.methods.iter().filter(is_left_out).map(|method| method.kind.name());
        methods.chain(keys).collect()
    }

    fn json(
        &self,
        result: &PlanResult,
        unseen: &[String],
    ) -> Result<serde_json::Value, CommandError> {
        let mut json = serde_json::to_value(result).map_err(io::Error::from)?;
        json["killed_at_events"] = serde_json::json!(self.kills);
        json["left_out"] = serde_json::json!(self.left_out());
        json["events"] = serde_json::json!(self.log.len());
        json["never_seen"] = serde_json::json!(unseen);
        Ok(json)
    }

    fn table(&self, result: &PlanResult, fired: &[u64]) -> String {
        let plan = self.experiment.plan();
        let mut text = format!("{}, seed {}, with a real process\n", plan.title, result.seed);
        writeln!(text, "{}", show::faults(plan, fired)).ok();
        if !self.kills.is_empty() {
            let kills: Vec<String> = self.kills.iter().map(ToString::to_string).collect();
            writeln!(text, "killed with SIGKILL at events {}", kills.join(", ")).ok();
        }
        let left_out = self.left_out();
        if !left_out.is_empty() {
            writeln!(text, "left out, for only a simulation can do it: {}", left_out.join(", "))
                .ok();
        }
        let mut verdicts = table(&["invariant", "verdict"]);
        for (id, verdict) in &result.verdicts {
            verdicts.add_row([id, verdict]);
        }
        let (events, hash) = (self.log.len(), &result.events_hash);
        writeln!(text, "{verdicts}\n{events} events in the joined log (hash {hash})").ok();
        writeln!(text, "repeat: {}", result.repeat).ok();
        text
    }
}
