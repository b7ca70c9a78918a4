//! Follows incidents from their opening to their end, groups them, and forgets the oldest.
//!
//! An incident is recovered when the agent lives again and the task that it performed runs again or
//! is over. Whoever learns of one of the two tells the book; it answers with the incidents that
//! this was the last word on. What nobody waits for costs nothing: [`IncidentBook::is_watching`]
//! tells whether an assignment can matter at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

mod recall;

use super::fingerprint::fingerprint;
use super::{Acknowledgement, Action, Incident, IncidentKind, IncidentState, Recovery, Report};
use crate::event::{Cause, Event};
use crate::id::{AgentId, Incarnation, TaskId};
use crate::limits::Limits;
use crate::time::{Timestamp, micros};

/// The incidents of a guild.
#[derive(Clone, Debug)]
pub struct IncidentBook {
    incidents: BTreeMap<u64, Incident>,
    groups: BTreeMap<u64, Group>,
    opened: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// The open incidents of each agent that is down: it may fail to come up more than once.
    down: BTreeSet<(AgentId, u64)>,
    /// The open incident of each task that nobody performs.
    idle: BTreeMap<TaskId, u64>,
    /// Tasks that were taken from a silent agent, whose incident comes when its life has ended.
    revoked: BTreeMap<TaskId, Revoked>,
    /// The agents that they were taken from, until they are heard of.
    silent: BTreeMap<AgentId, TaskId>,
    limits: Bounds,
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    incidents_max: usize,
    groups_max: usize,
    text_bytes_max: usize,
}

/// What an open incident waits for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The agent that has to live again, in a later life than this.
    agent: Option<(AgentId, Incarnation)>,
    /// The task that somebody has to perform again, in a later try than this.
    task: Option<(TaskId, u32)>,
    reassigned: Option<(AgentId, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Revoked {
    attempt: u32,
    agent: AgentId,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Reassigned(AgentId, u32),
    Over,
}

/// Incidents of one pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What they share.
    pub fingerprint: u64,
    /// How many there were.
    pub count: u64,
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// When the first was opened.
    pub first_at: Timestamp,
    /// When the last was opened.
    pub last_at: Timestamp,
    /// How many recovered.
    pub recovered: u64,
    /// Time that all of these took.
    pub recovery_us: u64,
}

/// Why an incident was not acknowledged; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcknowledgeError {
    /// There is none of this number, or it has been forgotten.
    #[error("there is no incident {number}: {opened} were opened, and only the newest are kept")]
    Unknown {
        /// What was asked for.
        number: u64,
        /// How many were opened.
        opened: u64,
    },
    /// The note is too long.
    #[error("a note has at most {bytes_max} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The guild has ended, so that nothing is recorded any more.
    #[error("the guild has ended; acknowledge on its store")]
    Ended,
}

impl IncidentBook {
    /// Returns an empty book; `opened_before` incidents were opened before.
    pub fn new(limits: &Limits, opened_before: u64) -> Self {
        Self {
            incidents: BTreeMap::new(),
            groups: BTreeMap::new(),
            opened: opened_before,
            waiting: BTreeMap::new(),
            down: BTreeSet::new(),
            idle: BTreeMap::new(),
            revoked: BTreeMap::new(),
            silent: BTreeMap::new(),
            limits: Bounds {
                incidents_max: limits.incidents_in_memory_max.max(1),
                groups_max: limits.incident_groups_max.max(1),
                text_bytes_max: limits.incident_text_bytes_max,
            },
        }
    }

    /// Returns the incidents that are kept, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    /// Returns the groups that are kept, by fingerprint.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// Returns how many incidents were opened.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Returns whether a task's assignment or end can matter.
    pub fn is_watching(&self) -> bool {
        !(self.idle.is_empty() && self.revoked.is_empty())
    }

    /// Returns how many tasks are kept that nobody performs, or whose agents have to be heard of.
    pub fn undecided(&self) -> usize {
        self.idle.len() + self.revoked.len()
    }

    /// Opens an incident; returns its event, and that of its end where nothing is left to wait for.
    pub fn open(&mut self, at: Timestamp, mut report: Report) -> (Event, Option<Event>) {
        self.shorten(&mut report);
        self.opened += 1;
        let number = self.opened;
        let waiting = self.waits_for(&report);
        self.watch(number, waiting);
        let is_over =
            matches!(report.kind, IncidentKind::DropPanicked | IncidentKind::StoreRestored)
                || report.action == Action::RestartActor
                || (report.action == Action::LeaveDown && waiting.task.is_none());
        let fingerprint = fingerprint(&report);
        let (recovery, acknowledgement) = (None, None);
        let incident = Incident { number, at, report, fingerprint, recovery, acknowledgement };
        self.keep(incident.clone());
        let recovered = if is_over { self.recover(at, number, None) } else { None };
        (Event::IncidentOpened(Box::new(incident)), recovered)
    }

    /// Recovers all incidents of a kind: what failed works again. Returns their events.
    pub fn mended(&mut self, at: Timestamp, kind: IncidentKind) -> Vec<Event> {
        self.recover_all(at, |report| report.kind == kind)
    }

    fn recover_all(&mut self, at: Timestamp, is_over: impl Fn(&Report) -> bool) -> Vec<Event> {
        let open = self.incidents.values().filter(|incident| incident.recovery.is_none());
        let over = open.filter(|incident| is_over(&incident.report));
        let over: Vec<u64> = over.map(|incident| incident.number).collect();
        over.into_iter().filter_map(|number| self.recover(at, number, None)).collect()
    }

    /// Notes that an agent lives; returns the events of the incidents that this ended.
    pub fn agent_lives(
        &mut self,
        at: Timestamp,
        agent: AgentId,
        incarnation: Incarnation,
    ) -> Vec<Event> {
        self.heard_of(agent);
        let earlier = |number: &u64| {
            let waiting = self.waiting.get(number).and_then(|waiting| waiting.agent);
            waiting.is_some_and(|(_, failed)| failed < incarnation)
        };
        let own = self.down.range((agent, 0)..=(agent, u64::MAX)).map(|(_, number)| *number);
        let over: Vec<u64> = own.filter(earlier).collect();
        let mut events = Vec::new();
        for number in over {
            self.down.remove(&(agent, number));
            if let Some(waiting) = self.waiting.get_mut(&number) {
                waiting.agent = None;
            }
            events.extend(self.settle(at, number));
        }
        events
    }

    /// Notes what the scheduler decided about a task; returns the event of an incident that this
    /// ended.
    pub fn task_event(&mut self, at: Timestamp, event: &Event) -> Option<Event> {
        let number = self.note_task(event)?;
        self.settle(at, number)
    }

    /// Notes what the scheduler decided about a task; returns the incident that waits for it no longer.
    fn note_task(&mut self, event: &Event) -> Option<u64> {
        match event {
            Event::TaskFailed { task, attempt, agent, cause, retry_at, .. } => {
                // The life of such an agent ends later than its lease, and its incident comes then.
                if matches!(cause, Cause::Timeout | Cause::Heartbeat) {
                    let fate = if retry_at.is_some() { Fate::Waits } else { Fate::Over };
                    let (attempt, agent) = (*attempt, *agent);
                    self.revoked.insert(*task, Revoked { attempt, agent, fate });
                    self.silent.insert(agent, *task);
                }
                None
            }
            Event::TaskAssigned { task, attempt, agent, .. } => {
                if let Some(revoked) = self.revoked.get_mut(task) {
                    revoked.fate = Fate::Reassigned(*agent, *attempt);
                }
                self.task_goes_on(*task, Some((*agent, *attempt)))
            }
            Event::TaskEnded { task, .. } => {
                if let Some(revoked) = self.revoked.get_mut(task) {
                    revoked.fate = Fate::Over;
                }
                self.task_goes_on(*task, None)
            }
            _ => None,
        }
    }

    /// Notes that a person has seen an incident; the newest note counts. Returns the event.
    ///
    /// # Errors
    /// There is no such incident, or the note is too long.
    pub fn acknowledge(
        &mut self,
        at: Timestamp,
        number: u64,
        note: &str,
    ) -> Result<Event, AcknowledgeError> {
        let (bytes, bytes_max) = (note.len(), self.limits.text_bytes_max);
        if bytes > bytes_max {
            return Err(AcknowledgeError::TooLong { bytes, bytes_max });
        }
        if !self.incidents.contains_key(&number) {
            return Err(AcknowledgeError::Unknown { number, opened: self.opened });
        }
        self.acknowledged(at, number, note.into());
        Ok(Event::IncidentAcknowledged { incident: number, note: note.into() })
    }

    /// Returns what an incident waits for that is opened now.
    fn waits_for(&mut self, report: &Report) -> Waiting {
        let mut waiting = Waiting { agent: awaited(report), task: None, reassigned: None };
        if report.kind == IncidentKind::AgentCrashed {
            waiting.task = report.attempt.map(|attempt| (attempt.task, attempt.number));
        }
        if let Some((task, attempt)) = waiting.task
            && let Some(revoked) = self.revoked.remove(&task)
            && revoked.attempt == attempt
        {
            match revoked.fate {
                Fate::Waits => {}
                Fate::Reassigned(agent, attempt) => {
                    (waiting.task, waiting.reassigned) = (None, Some((agent, attempt)));
                }
                Fate::Over => waiting.task = None,
            }
        }
        if let (IncidentKind::AgentCrashed, Some((agent, _))) = (report.kind, report.agent) {
            self.heard_of(agent);
        }
        waiting
    }

    /// Waits no longer for the end of a life from which a task was taken: it has come, or is not told
    /// (the agent was condemned with its thread).
    fn heard_of(&mut self, agent: AgentId) {
        if let Some(task) = self.silent.remove(&agent)
            && self.revoked.get(&task).is_some_and(|revoked| revoked.agent == agent)
        {
            self.revoked.remove(&task);
        }
    }

    fn task_goes_on(&mut self, task: TaskId, reassigned: Option<(AgentId, u32)>) -> Option<u64> {
        let number = self.idle.remove(&task)?;
        let waiting = self.waiting.get_mut(&number)?;
        waiting.task = None;
        waiting.reassigned = reassigned;
        Some(number)
    }

    /// Recovers an incident of which nothing is left to wait for.
    fn settle(&mut self, at: Timestamp, number: u64) -> Option<Event> {
        let waiting = self.waiting.get(&number)?;
        if waiting.agent.is_some() || waiting.task.is_some() {
            return None;
        }
        let reassigned = waiting.reassigned;
        self.recover(at, number, reassigned)
    }

    fn recover(
        &mut self,
        at: Timestamp,
        number: u64,
        reassigned: Option<(AgentId, u32)>,
    ) -> Option<Event> {
        let opened_at = self.incidents.get(&number)?.at;
        let took_us = micros(at.since(opened_at));
        self.recovered(number, took_us, reassigned);
        Some(Event::IncidentRecovered { incident: number, took_us, reassigned })
    }

    fn recovered(&mut self, number: u64, took_us: u64, reassigned: Option<(AgentId, u32)>) {
        self.forget_waiting(number);
        let Some(incident) = self.incidents.get_mut(&number) else {
            return;
        };
        let at = Timestamp(incident.at.0.saturating_add(took_us));
        incident.recovery = Some(Recovery { at, reassigned });
        if let Some(group) = self.groups.get_mut(&incident.fingerprint) {
            group.recovered += 1;
            group.recovery_us += took_us;
        }
    }

    fn acknowledged(&mut self, at: Timestamp, number: u64, note: Box<str>) {
        if let Some(incident) = self.incidents.get_mut(&number) {
            incident.acknowledgement = Some(Acknowledgement { at, note });
        }
    }

    fn watch(&mut self, number: u64, waiting: Waiting) {
        if waiting.agent.is_none() && waiting.task.is_none() {
            return;
        }
        if let Some((agent, _)) = waiting.agent {
            self.down.insert((agent, number));
        }
        if let Some((task, _)) = waiting.task {
            self.idle.insert(task, number);
        }
        self.waiting.insert(number, waiting);
    }

    fn forget_waiting(&mut self, number: u64) {
        if let Some(waiting) = self.waiting.remove(&number) {
            if let Some((agent, _)) = waiting.agent {
                self.down.remove(&(agent, number));
            }
            if let Some((task, _)) = waiting.task {
                self.idle.remove(&task);
            }
        }
    }

    /// Keeps an incident and its group; forgets what there is no room for.
    fn keep(&mut self, incident: Incident) {
        let (number, at) = (incident.number, incident.at);
        let group = self.groups.entry(incident.fingerprint).or_insert_with(|| Group {
            fingerprint: incident.fingerprint,
            count: 0,
            first: number,
            last: number,
            first_at: at,
            last_at: at,
            recovered: 0,
            recovery_us: 0,
        });
        group.count += 1;
        (group.last, group.last_at) = (number, at);
        if self.groups.len() > self.limits.groups_max
            && let Some(oldest) = self.groups.values().min_by_key(|group| group.last)
        {
            let oldest = oldest.fingerprint;
            self.groups.remove(&oldest);
        }
        self.incidents.insert(number, incident);
        if self.incidents.len() > self.limits.incidents_max {
            self.forget_one();
        }
    }

    /// Forgets the oldest incident that is over; if none of the oldest is, the oldest.
    fn forget_one(&mut self) {
        let over = |incident: &&Incident| incident.state() != IncidentState::Open;
        let older = self.incidents.values().take(FORGET_LOOKS_MAX);
        let over = older.filter(over).map(|incident| incident.number).next();
        let first = || self.incidents.keys().next().copied();
        if let Some(number) = over.or_else(first) {
            self.incidents.remove(&number);
            self.forget_waiting(number);
        }
    }

    fn shorten(&self, report: &mut Report) {
        let max = self.limits.text_bytes_max;
        cut(&mut report.message, max);
        report.causes.iter_mut().for_each(|cause| cut(cause, max));
        report.location.iter_mut().for_each(|location| cut(location, max));
        report.backtrace.iter_mut().for_each(|trace| cut(trace, max.saturating_mul(4)));
    }
}

/// Returns the agent that has to live again before an incident is over.
fn awaited(report: &Report) -> Option<(AgentId, Incarnation)> {
    let is_down = match report.kind {
        IncidentKind::AgentCrashed => report.action != Action::LeaveDown,
        IncidentKind::SupervisorGaveUp => true,
        _ => false,
    };
    report.agent.filter(|_| is_down)
}

/// Incidents that are looked at to find one that can be forgotten.
const FORGET_LOOKS_MAX: usize = 64;

/// Cuts a text at a boundary of characters.
fn cut(text: &mut Box<str>, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        *text = format!("{}...", &text[..end]).into();
    }
}
