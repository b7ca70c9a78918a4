//! Follows a log: what runs, tasks, agents and quotas are at each line.
//!
//! The board believes the log and judges nothing; a line that makes no sense changes as little as
//! it can. It keeps what is alive: the tasks of runs that have not ended, the agents, the quotas.
//! Of a run that has ended it keeps a hash of its name.

mod agent;
mod quota;
mod run;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guild_core::digest::Digest;
use guild_core::event::{ClockKind, LineEvent, Terms};

pub(super) use self::agent::{Agent, AgentNo};
pub(super) use self::quota::Quota;
pub(super) use self::run::Run;
pub(super) use self::task::{Lease, Status, Task};

/// Numbers runs in the order of their submission.
pub(super) type RunNo = u64;

/// What a start of the guild tells about it.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) epoch: u64,
    pub(super) clock: ClockKind,
    pub(super) is_durable: bool,
    /// Agents of each role.
    pub(super) roles: BTreeMap<String, u32>,
    pub(super) commits_in_flight_max: u64,
    pub(super) interruptions_max: u32,
}

/// The state of everything that is alive.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The newest start.
    pub(super) life: Option<Life>,
    /// The newest version of the memory.
    pub(super) version: u64,
    /// The greatest token that was given.
    pub(super) token: u64,
    /// The greatest number of a fault.
    pub(super) fault: u64,
    /// When the newest event happened.
    pub(super) at_us: u64,
    runs: BTreeMap<RunNo, Run>,
    run_names: BTreeMap<Arc<str>, RunNo>,
    runs_ended: BTreeSet<u64>,
    next_run: RunNo,
    agents: Vec<Agent>,
    roles: Vec<Role>,
    /// Roles that have lost all their agents in this start of the process.
    pub(super) roles_lost: BTreeSet<String>,
    /// Leases that live in this start of the process.
    pub(super) leases: u64,
    agent_names: BTreeMap<Arc<str>, AgentNo>,
    pub(super) quotas: BTreeMap<String, Quota>,
    terms: Option<Arc<Terms>>,
    /// The task that has just completed, while the tasks that it spawned are added.
    closing: Option<(RunNo, u32)>,
}

/// The agents of a role that has ever had one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    /// Agents that surely have nothing to do.
    pub(super) idle: u32,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<T> {
    /// It is there.
    Live(T),
    /// It was there.
    Over,
    /// It never was.
    Never,
}

/// What an event is about, looked up before the event is taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'b> {
    pub(super) run: Option<Known<&'b Run>>,
    pub(super) task: Option<&'b Task>,
    pub(super) agent: Option<&'b Agent>,
}

/// The same by numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) run: Option<RunNo>,
    pub(super) task: Option<u32>,
    agent: Option<AgentNo>,
}

impl Board {
    /// Closes what the line before has left open: a task that spawned nothing more.
    pub(super) fn settle(&mut self, event: &LineEvent<'_>) {
        let Some((run, task)) = self.closing else {
            return;
        };
        let Some(state) = self.runs.get_mut(&run) else {
            self.closing = None;
            return;
        };
        if let LineEvent::TaskAdded { task: added, spawned_by: Some(parent), .. } = event
            && *state.name == *added.run
            && state.find(parent) == Some(task)
        {
            return;
        }
        state.close(task);
        self.closing = None;
    }

    /// Looks up what an event is about.
    pub(super) fn find(&self, event: &LineEvent<'_>) -> (Place, Subject<'_>) {
        let mut place = Place::default();
        let mut subject = Subject { run: None, task: None, agent: None };
        if let Some(name) = event.run() {
            let run = self.run_named(name);
            subject.run = Some(run);
            if let Known::Live(run) = run {
                place.run = Some(run.no);
                place.task = event.task().and_then(|task| run.find(&task.task));
                subject.task = place.task.map(|no| run.task(no));
            }
        }
        if let Some(name) = event.agent() {
            place.agent = self.agent_names.get(name).copied();
            subject.agent = place.agent.map(|no| &self.agents[no]);
        }
        (place, subject)
    }

    /// Returns the run of a name.
    pub(super) fn run_named(&self, name: &str) -> Known<&Run> {
        match self.run_names.get(name) {
            Some(no) => Known::Live(&self.runs[no]),
            None if self.runs_ended.contains(&hash(name)) => Known::Over,
            None => Known::Never,
        }
    }

    /// Returns the runs that have not ended, the oldest first.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values()
    }

    /// Returns all agents.
    pub(super) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Returns all roles that have ever had an agent.
    pub(super) fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// Returns the run of a number, if it has not ended.
    pub(super) fn run(&self, no: RunNo) -> Option<&Run> {
        self.runs.get(&no)
    }

    /// Returns whether the log tells virtual time.
    pub(super) fn is_virtual(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.clock == ClockKind::Virtual)
    }

    /// Takes an event in.
    pub(super) fn apply(&mut self, place: Place, at_us: u64, event: &LineEvent<'_>) {
        self.at_us = at_us;
        match event {
            LineEvent::GuildStarted { .. } => self.start(event),
            LineEvent::RunSubmitted { run, tasks, .. } => self.submit(run, *tasks),
            LineEvent::RunCancelled { .. } => {
                if let Some(run) = place.run.and_then(|no| self.runs.get_mut(&no)) {
                    run.is_cancelled = true;
                }
            }
            LineEvent::RunEnded { .. } => self.end_run(place),
            LineEvent::AgentStarted { agent, role, incarnation } => {
                let no = self.agent(agent, role);
                self.change_agent(Some(no), |agent| agent.begin(*incarnation));
            }
            LineEvent::AgentRestarted { incarnation, .. } => {
                self.change_agent(place.agent, |agent| agent.begin(*incarnation));
            }
            LineEvent::AgentCrashed { incarnation, .. }
            | LineEvent::AgentStopped { incarnation, .. } => {
                self.change_agent(place.agent, |agent| agent.end(*incarnation));
            }
            LineEvent::RoleLost { role, .. } => {
                self.roles_lost.insert(role.to_string());
            }
            LineEvent::FaultInjected { fault, .. } => self.fault = self.fault.max(*fault),
            LineEvent::MemoryCommitted { version, .. } => {
                self.version = self.version.max(*version);
            }
            LineEvent::QuotaChanged { quota, in_use, limit } => {
                let state = self.quotas.entry(quota.to_string()).or_default();
                state.in_use = *in_use;
                state.limit = *limit;
            }
            LineEvent::TaskAdded { .. } => self.add_task(place, event),
            _ => self.change_task(place, at_us, event),
        }
    }

    fn start(&mut self, event: &LineEvent<'_>) {
        let LineEvent::GuildStarted {
            epoch,
            clock,
            durability,
            roles,
            quotas,
            commits_in_flight_max,
            interruptions_max,
            ..
        } = event
        else {
            return;
        };
        self.life = Some(Life {
            epoch: *epoch,
            clock: *clock,
            is_durable: &**durability == "disk",
            roles: roles.iter().cloned().collect(),
            commits_in_flight_max: *commits_in_flight_max,
            interruptions_max: *interruptions_max,
        });
        self.quotas =
            quotas.iter().map(|(name, terms)| (name.clone(), Quota::of(*terms))).collect();
        self.agents.iter_mut().for_each(Agent::lose);
        self.roles.iter_mut().for_each(|role| role.idle = 0);
        self.roles_lost.clear();
        self.leases = 0;
        self.runs.values_mut().for_each(Run::lose_leases);
    }

    fn submit(&mut self, name: &str, tasks: u32) {
        if self.run_names.contains_key(name) {
            return;
        }
        let name: Arc<str> = name.into();
        let no = self.next_run;
        self.next_run += 1;
        self.run_names.insert(Arc::clone(&name), no);
        self.runs.insert(no, Run::new(no, name, tasks));
    }

    fn end_run(&mut self, place: Place) {
        if let Some(run) = place.run.and_then(|no| self.runs.remove(&no)) {
            self.run_names.remove(&run.name);
            self.runs_ended.insert(hash(&run.name));
            run.leases().for_each(|lease| self.end_lease(*lease, false));
        }
    }

    fn agent(&mut self, name: &str, role: &str) -> AgentNo {
        if let Some(no) = self.agent_names.get(name) {
            return *no;
        }
        let name: Arc<str> = name.into();
        let no = self.agents.len();
        let known = self.roles.iter().position(|known| known.name == role);
        let role = known.unwrap_or_else(|| {
            self.roles.push(Role { name: role.to_owned(), idle: 0 });
            self.roles.len() - 1
        });
        self.agents.push(Agent::new(Arc::clone(&name), role));
        self.agent_names.insert(name, no);
        no
    }

    fn add_task(&mut self, place: Place, event: &LineEvent<'_>) {
        let LineEvent::TaskAdded { task, role, after, spawned_by, terms } = event else {
            return;
        };
        // Most tasks of a run ask for the same: they share it.
        let shared = self.terms.as_ref().filter(|known| ***known == **terms);
        let terms = shared.map_or_else(|| Arc::new((**terms).clone()), Arc::clone);
        self.terms = Some(Arc::clone(&terms));
        if let (Some(run), None) = (place.run.and_then(|no| self.runs.get_mut(&no)), place.task) {
            run.add(task, role, after, spawned_by.as_deref(), terms);
        }
    }

    fn change_task(&mut self, place: Place, at_us: u64, event: &LineEvent<'_>) {
        let (Some(run_no), Some(no)) = (place.run, place.task) else {
            return;
        };
        let Some(run) = self.runs.get_mut(&run_no) else {
            return;
        };
        let was_over = run.task(no).is_over();
        let ended = run.task_mut(no).take(at_us, event, place.agent);
        match event {
            LineEvent::TaskCompleted { version, .. } => {
                self.version = self.version.max(*version);
                if !was_over {
                    run.end(no);
                    self.closing = Some((run_no, no));
                }
            }
            LineEvent::TaskEnded { .. } if !was_over => {
                run.end(no);
                run.close(no);
            }
            LineEvent::TaskAssigned { lease, .. } => {
                self.token = self.token.max(lease.token);
                if !was_over && place.agent.is_some() {
                    self.leases += 1;
                    self.change_agent(place.agent, |agent| agent.leases += 1);
                }
            }
            _ => {}
        }
        if let Some(lease) = ended {
            self.end_lease(lease, puts_in_doubt(event));
        }
    }

    fn end_lease(&mut self, lease: Lease, is_doubtful: bool) {
        if lease.is_orphaned {
            return;
        }
        self.leases = self.leases.saturating_sub(1);
        self.change_agent(Some(lease.agent), |agent| {
            agent.leases = agent.leases.saturating_sub(1);
            agent.is_doubtful |= is_doubtful && lease.incarnation == agent.incarnation;
        });
    }

    /// Changes an agent and keeps count of those that are idle.
    fn change_agent(&mut self, no: Option<AgentNo>, change: impl FnOnce(&mut Agent)) {
        let Some(agent) = no.and_then(|no| self.agents.get_mut(no)) else {
            return;
        };
        let was_idle = agent.is_idle();
        change(agent);
        let role = &mut self.roles[agent.role];
        role.idle = role.idle + u32::from(agent.is_idle()) - u32::from(was_idle);
    }
}

/// Returns whether an agent may be down although the log has not said so yet.
fn puts_in_doubt(event: &LineEvent<'_>) -> bool {
    use guild_core::event::Cause;
    match event {
        LineEvent::TaskFailed { cause, .. } => !matches!(cause, Cause::Error | Cause::Conflict),
        LineEvent::TaskEnded { .. } | LineEvent::TaskReturned { .. } => true,
        _ => false,
    }
}

fn hash(name: &str) -> u64 {
    Digest::of(name.as_bytes())
}
