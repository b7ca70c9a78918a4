//! Folds an event log to what a report shows: who worked when, what waited, what went wrong.
//!
//! It reads lines, as any tool outside would, so a report can be made of the log of any run.

use std::collections::BTreeMap;

use super::line::Line;
use super::series::Series;

/// A task of the log.
#[derive(Debug, Default)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) ready_at: Option<u64>,
    pub(super) attempts: u32,
    /// Place of the attempt that completed it.
    pub(super) completed: Option<usize>,
    pub(super) state: Option<String>,
    /// Whether it is ready and nobody works on it.
    waits: bool,
    after: Vec<u32>,
    parent: Option<u32>,
    /// The task before it that ended last, and the one with the longest chain behind it.
    pub(super) last_before: Option<u32>,
    pub(super) longest_before: Option<u32>,
    /// Length of the longest chain of completed attempts that ends with it.
    pub(super) chain_us: u64,
    /// Of itself and all it spawned, the task with the longest chain and the one that ended last.
    longest: Option<u32>,
    last: Option<u32>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    /// The log ends before it.
    Open,
    Completed,
    /// The cause and what was said.
    Failed(String, String),
}

/// One attempt of a task.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) task: u32,
    pub(super) agent: u32,
    pub(super) number: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) ended: AttemptEnd,
}

/// A time in which an agent could not work.
#[derive(Debug)]
pub(super) struct Down {
    pub(super) from: u64,
    /// None: until the end.
    pub(super) to: Option<u64>,
    pub(super) quarantined: bool,
    pub(super) message: String,
}

/// An agent of the log.
#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) role: u32,
    pub(super) index: u32,
    pub(super) downs: Vec<Down>,
}

/// An incident of the log.
#[derive(Debug)]
pub(super) struct Incident {
    pub(super) at: u64,
    pub(super) line: Line,
}

/// Everything a report shows of a log.
#[derive(Debug, Default)]
pub struct Chronicle {
    pub(super) clock: String,
    pub(super) order: String,
    pub(super) seed: Option<u64>,
    pub(super) runs: Vec<String>,
    pub(super) edges: u64,
    pub(super) outcome: Option<String>,
    pub(super) end: u64,
    pub(super) events: u64,
    pub(super) tasks: Vec<Task>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) roles: Vec<String>,
    pub(super) agents: Vec<Agent>,
    pub(super) incidents: Vec<Incident>,
    pub(super) faults: u64,
    pub(super) restarts: u64,
    pub(super) running: Series,
    pub(super) ready: Series,
    pub(super) up: Series,
    pub(super) quotas: BTreeMap<String, (Series, Series)>,
    /// Of each quota that is a rate, what comes back in a microsecond.
    pub(super) refills: BTreeMap<String, f64>,
    pub(super) phases: Vec<(u64, String)>,
    task_of: BTreeMap<(u32, String), u32>,
    agent_of: BTreeMap<String, u32>,
    /// The attempt that is under way of each task, by its place.
    open: BTreeMap<u32, usize>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {number} of the event log is not what Guild writes: {source}")]
pub struct ChronicleError {
    /// The line, from 1.
    pub number: u64,
    source: serde_json::Error,
}

impl Chronicle {
    /// Adds the next line of the log.
    ///
    /// # Errors
    /// It is no line of an event log; the chronicle is then as it was.
    pub fn line(&mut self, text: &str) -> Result<(), ChronicleError> {
        let number = self.events + 1;
        let mut line = Line::read(text).map_err(|source| ChronicleError { number, source })?;
        self.events = number;
        // Time does not go back, whatever a damaged log says.
        self.end = self.end.max(line.at_us);
        line.at_us = self.end;
        match line.kind.as_str() {
            "guild_started" | "run_submitted" | "run_ended" | "phase_started" => self.frame(line),
            "agent_started" | "agent_crashed" | "agent_restarted" | "agent_quarantined"
            | "agent_released" => self.agent_event(line),
            "task_added" | "task_ready" | "task_ended" => self.task_event(line),
            "task_assigned" | "task_completed" | "task_failed" => self.attempt_event(line),
            "incident_opened" => self.incidents.push(Incident { at: line.at_us, line }),
            "fault_injected" => self.faults += 1,
            "quota_changed" => self.quota(line),
            // A kind that a later version writes does not spoil what is known.
            _ => {}
        }
        Ok(())
    }

    /// Returns whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn frame(&mut self, line: Line) {
        match line.kind.as_str() {
            "guild_started" => {
                self.clock = line.clock.unwrap_or_default();
                self.order = line.order.unwrap_or_default();
                for (name, terms) in line.quotas.into_iter().flatten() {
                    if let (Some(amount), Some(per)) =
                        (terms["amount"].as_f64(), terms["per_us"].as_f64())
                    {
                        self.refills.insert(name, amount / per.max(1.0));
                    }
                }
            }
            "run_submitted" => {
                self.seed = line.seed;
                self.edges += line.edges.unwrap_or(0);
                self.run(&line.run);
            }
            "run_ended" => self.outcome = line.outcome,
            _ => self.phases.push((line.at_us, line.phase.unwrap_or_default())),
        }
    }

    fn run(&mut self, name: &Option<String>) -> u32 {
        let name = name.as_deref().unwrap_or_default();
        let known = self.runs.iter().rposition(|known| known == name);
        let place = known.unwrap_or_else(|| {
            self.runs.push(name.to_owned());
            self.runs.len() - 1
        });
        place as u32
    }

    fn task(&mut self, run: u32, name: String) -> u32 {
        let next = self.tasks.len() as u32;
        let place = *self.task_of.entry((run, name.clone())).or_insert(next);
        if place == next {
            self.tasks.push(Task { name, ..Task::default() });
        }
        place
    }

    /// Finds an agent by its name, its role and its number.
    fn agent(&mut self, name: Option<String>) -> u32 {
        let name = name.unwrap_or_default();
        if let Some(place) = self.agent_of.get(&name) {
            return *place;
        }
        let (role, index) = name.rsplit_once('-').unwrap_or((&name, "0"));
        let known = self.roles.iter().position(|known| known == role);
        let place = known.unwrap_or_else(|| {
            self.roles.push(role.to_owned());
            self.roles.len() - 1
        });
        let index = index.parse().unwrap_or(0);
        self.agents.push(Agent { role: place as u32, index, ..Agent::default() });
        let agent = (self.agents.len() - 1) as u32;
        self.agent_of.insert(name, agent);
        agent
    }

    fn agent_event(&mut self, line: Line) {
        let at = line.at_us;
        let agent = self.agent(line.agent) as usize;
        let is_down = self.agents[agent].downs.last().is_some_and(|down| down.to.is_none());
        match line.kind.as_str() {
            "agent_started" => self.up.add(at, 1),
            "agent_crashed" => {
                if !is_down {
                    self.up.subtract(at, 1);
                }
                let message = line.message.unwrap_or_default();
                let cause = line.cause.unwrap_or_default();
                let message =
                    if message.is_empty() { cause } else { format!("{cause}: {message}") };
                self.agents[agent].downs.push(Down {
                    from: at,
                    to: None,
                    quarantined: false,
                    message,
                });
            }
            "agent_quarantined" => {
                if let Some(down) = self.agents[agent].downs.last_mut() {
                    down.quarantined = true;
                }
            }
            "agent_restarted" => {
                self.restarts += 1;
                for down in self.agents[agent].downs.iter_mut().rev().take_while(|d| d.to.is_none())
                {
                    down.to = Some(at);
                }
                if is_down {
                    self.up.add(at, 1);
                }
            }
            // The next life of a released agent is told by its own event.
            _ => {}
        }
    }

    fn task_event(&mut self, line: Line) {
        let at = line.at_us;
        let run = self.run(&line.run);
        let Some(name) = line.task else { return };
        let place = self.task(run, name);
        match line.kind.as_str() {
            "task_added" => {
                let after = line.after.into_iter().map(|name| self.task(run, name)).collect();
                let parent = line.spawned_by.map(|name| self.task(run, name));
                let task = &mut self.tasks[place as usize];
                (task.after, task.parent) = (after, parent);
            }
            "task_ready" => self.waits(place, at, true),
            _ => {
                self.waits(place, at, false);
                self.tasks[place as usize].state = line.state;
            }
        }
    }

    fn waits(&mut self, place: u32, at: u64, waits: bool) {
        let task = &mut self.tasks[place as usize];
        if waits {
            task.ready_at.get_or_insert(at);
        }
        match (std::mem::replace(&mut task.waits, waits), waits) {
            (false, true) => self.ready.add(at, 1),
            (true, false) => self.ready.subtract(at, 1),
            _ => {}
        }
    }

    fn attempt_event(&mut self, line: Line) {
        let at = line.at_us;
        let run = self.run(&line.run);
        let Some(name) = line.task else { return };
        let task = self.task(run, name);
        if line.kind == "task_assigned" {
            self.waits(task, at, false);
            let agent = self.agent(line.agent);
            let number = line.attempt.unwrap_or(1);
            let ended = AttemptEnd::Open;
            self.attempts.push(Attempt { task, agent, number, start: at, end: at, ended });
            let known = &mut self.tasks[task as usize];
            known.attempts = known.attempts.max(number);
            if self.open.insert(task, self.attempts.len() - 1).is_none() {
                self.running.add(at, 1);
            }
            return;
        }
        // A task without an attempt is one that a person decides.
        let Some(attempt) = self.open.remove(&task) else { return };
        self.running.subtract(at, 1);
        self.attempts[attempt].end = at;
        if line.kind == "task_completed" {
            self.attempts[attempt].ended = AttemptEnd::Completed;
            self.tasks[task as usize].completed = Some(attempt);
            self.chain(task, at - self.attempts[attempt].start);
        } else {
            let (cause, message) =
                (line.cause.unwrap_or_default(), line.message.unwrap_or_default());
            self.attempts[attempt].ended = AttemptEnd::Failed(cause, message);
        }
    }

    /// Whatever a task waits for has completed before it, so one pass in the order of the log finds
    /// the longest chain. Who waits for a task waits for all that it spawned, too.
    fn chain(&mut self, place: u32, duration: u64) {
        let task = &self.tasks[place as usize];
        let of = |place: &u32| &self.tasks[*place as usize];
        let before = || task.after.iter().map(of);
        let longest = before().filter_map(|task| task.longest).chain(task.parent);
        let longest = longest.max_by_key(|place| of(place).chain_us);
        let last = before().filter_map(|task| task.last).chain(task.parent);
        let last = last.max_by_key(|place| self.ended_at(*place));
        let chain_us = longest.map_or(0, |place| of(&place).chain_us) + duration;
        let task = &mut self.tasks[place as usize];
        (task.longest_before, task.last_before, task.chain_us) = (longest, last, chain_us);
        task.after = Vec::new();
        let mut up = Some(place);
        // No log of Guild has a circle of parents; a damaged one must not hang the reader.
        for _ in 0..self.tasks.len() {
            let Some(at) = up else { break };
            let longest = self.tasks[at as usize].longest;
            let is_longer =
                longest.is_none_or(|other| self.tasks[other as usize].chain_us < chain_us);
            let above = &mut self.tasks[at as usize];
            above.last = Some(place);
            if is_longer {
                above.longest = Some(place);
            }
            up = above.parent;
        }
    }

    /// Returns when a completed task ended.
    pub(super) fn ended_at(&self, task: u32) -> Option<u64> {
        let attempt = self.tasks.get(task as usize)?.completed?;
        Some(self.attempts[attempt].end)
    }

    fn quota(&mut self, line: Line) {
        let (in_use, limit) = self.quotas.entry(line.quota.unwrap_or_default()).or_default();
        in_use.set(line.at_us, line.in_use.unwrap_or(0));
        limit.set(line.at_us, line.limit.unwrap_or(0));
    }

    /// Returns the longest chain of completed attempts that waited for each other, first to last.
    pub(super) fn critical_path(&self) -> Vec<u32> {
        let completed = (0..self.tasks.len() as u32).filter(|task| self.ended_at(*task).is_some());
        let last = completed
            .max_by_key(|task| (self.tasks[*task as usize].chain_us, std::cmp::Reverse(*task)));
        self.back_from(last, |task| task.longest_before)
    }

    /// Returns the task that ended last, and before it the one that each waited for last.
    pub(super) fn last_chain(&self) -> Vec<u32> {
        let last = (0..self.tasks.len() as u32).max_by_key(|task| self.ended_at(*task));
        self.back_from(last.filter(|task| self.ended_at(*task).is_some()), |task| task.last_before)
    }

    fn back_from(&self, last: Option<u32>, before: impl Fn(&Task) -> Option<u32>) -> Vec<u32> {
        let next = |task: &u32| before(&self.tasks[*task as usize]);
        let mut path: Vec<u32> = std::iter::successors(last, next).take(self.tasks.len()).collect();
        path.reverse();
        path
    }
}
