//! The states of one run's tasks.

use std::sync::Arc;

use crate::event::{EndState, Tally};
use crate::graph::{Bindings, Followers, Graph, TaskSpec};
use crate::id::{AgentId, FencingToken, Incarnation, RunId, TaskIndex};
use crate::time::Timestamp;

use super::Progress;

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Tasks before it have not completed.
    Waiting,
    /// It could run; it is in the ready heap of its role.
    Ready,
    /// It could run but for a quota; it waits there.
    Parked,
    /// It failed and is tried again then.
    Backoff(Timestamp),
    /// An agent performs it.
    Running,
    /// Its completion is being committed.
    Committing,
    /// It completed.
    Completed,
    /// It ended otherwise.
    Ended(EndState),
}

impl Status {
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Ended(_))
    }
}

/// Who performs a task, or performed it while it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) agent: AgentId,
    pub(super) incarnation: Incarnation,
    pub(super) token: FencingToken,
}

/// The agents that a task has taken down.
#[derive(Clone, Debug, Default)]
pub(super) struct Victims {
    agents: Vec<AgentId>,
    /// How many there were before the process started.
    before: u32,
}

impl Victims {
    /// Returns those of an earlier start of the process; they need not be known by name, for their
    /// supervisors have forgotten them.
    pub(super) fn from_before(count: u32) -> Self {
        Self { agents: Vec::new(), before: count }
    }

    /// Adds one; with one too many the task is poison, and this returns how many there are, and who.
    pub(super) fn add(&mut self, agent: AgentId, kills_max: u32) -> Option<(u32, Vec<AgentId>)> {
        self.agents.push(agent);
        let kills = u32::try_from(self.agents.len()).unwrap_or(u32::MAX);
        let kills = kills.saturating_add(self.before);
        (kills > kills_max).then(|| (kills, std::mem::take(&mut self.agents)))
    }
}

/// What went wrong with a task.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    pub(super) failures: u32,
    pub(super) interruptions: u32,
    /// The agent that failed it last.
    pub(super) avoid: Option<AgentId>,
    /// The agents that it has taken down.
    pub(super) victims: Victims,
}

/// One task. There may be a million, in which agents take turns: what only some have is kept elsewhere.
#[derive(Clone, Debug)]
pub(super) struct TaskState {
    pub(super) status: Status,
    /// Place of its graph in [`Run::parts`].
    pub(super) part: u32,
    /// Tasks before it whose scope is still open.
    pub(super) pending: u32,
    /// Tasks that it spawned whose scope is still open.
    pub(super) children_open: u32,
    /// Some task in its scope did not complete.
    pub(super) tainted: bool,
    /// It and everything that it spawned have ended.
    pub(super) closed: bool,
    pub(super) attempts: u32,
    /// What went wrong with it; nothing does with most tasks.
    pub(super) trouble: Option<Box<Trouble>>,
    pub(super) holder: Option<Holder>,
    pub(super) rank: u64,
    /// Others wait for it: it goes before all of them, whatever its priority.
    pub(super) urgent: bool,
    /// Number of the moment when it became ready.
    pub(super) ready_since: u64,
}

const _: () = assert!(size_of::<TaskState>() <= 96, "every task has one of these");

impl TaskState {
    /// Returns the agent that failed it last.
    pub(super) fn avoid(&self) -> Option<AgentId> {
        self.trouble.as_ref()?.avoid
    }
}

/// The submitted graph or one that a task spawned.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) parent: Option<TaskIndex>,
    pub(super) first: u32,
    pub(super) graph: Arc<Graph>,
    pub(super) bindings: Bindings,
    pub(super) followers: Followers,
}

/// One run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) parts: Vec<Part>,
    pub(super) tasks: Vec<TaskState>,
    pub(super) tally: Tally,
    pub(super) running: u32,
    pub(super) ready: u32,
    pub(super) ended: u32,
    pub(super) submitted_at: Timestamp,
    pub(super) cancelled: bool,
    pub(super) told: bool,
}

impl Run {
    pub(super) fn new(id: RunId, submitted_at: Timestamp) -> Self {
        Self {
            id,
            parts: Vec::new(),
            tasks: Vec::new(),
            tally: Tally::default(),
            running: 0,
            ready: 0,
            ended: 0,
            submitted_at,
            cancelled: false,
            told: false,
        }
    }

    /// Adds the tasks of a graph; returns the number of the first.
    pub(super) fn add_part(
        &mut self,
        graph: Arc<Graph>,
        bindings: Bindings,
        parent: Option<TaskIndex>,
    ) -> u32 {
        let first = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let part = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        let behind = parent.map_or(0, |parent| self.tasks[parent.at()].rank);
        let ranks = graph.ranks();
        self.tasks.extend(graph.tasks.iter().zip(ranks).map(|(task, rank)| TaskState {
            status: Status::Waiting,
            part,
            pending: u32::try_from(task.after.len()).unwrap_or(u32::MAX),
            children_open: 0,
            tainted: false,
            closed: false,
            attempts: 0,
            trouble: None,
            holder: None,
            rank: rank.saturating_add(behind),
            urgent: false,
            ready_since: 0,
        }));
        if let Some(parent) = parent {
            self.tasks[parent.at()].children_open +=
                u32::try_from(graph.tasks.len()).unwrap_or(u32::MAX);
        }
        let followers = graph.followers();
        self.parts.push(Part { parent, first, graph, bindings, followers });
        first
    }

    pub(super) fn part(&self, task: TaskIndex) -> &Part {
        &self.parts[self.tasks[task.at()].part as usize]
    }

    pub(super) fn spec(&self, task: TaskIndex) -> &TaskSpec {
        let part = self.part(task);
        &part.graph.tasks[(task.0 - part.first) as usize]
    }

    /// Returns who waits for a task.
    pub(super) fn followers(&self, task: TaskIndex) -> Vec<TaskIndex> {
        let part = self.part(task);
        let local = TaskIndex(task.0 - part.first);
        part.followers.of(local).iter().map(|index| TaskIndex(index.0 + part.first)).collect()
    }

    /// Returns the place of the role that a task asks for.
    pub(super) fn role(&self, task: TaskIndex) -> usize {
        let part = self.part(task);
        usize::from(part.bindings.roles[usize::from(self.spec(task).options.role)].0)
    }

    /// Returns the places and amounts of the quotas that a task draws on.
    pub(super) fn demands(&self, task: TaskIndex) -> impl Iterator<Item = (usize, u32)> + '_ {
        let part = self.part(task);
        let quotas = &self.spec(task).options.quotas;
        quotas.iter().map(|(place, amount)| {
            (usize::from(part.bindings.quotas[usize::from(*place)].0), *amount)
        })
    }

    /// Moves a task to another state: the only place where a state changes.
    ///
    /// # Panics
    /// The task has ended: what is final stays final.
    pub(super) fn set(&mut self, task: TaskIndex, status: Status) {
        let state = &mut self.tasks[task.at()];
        let before = std::mem::replace(&mut state.status, status);
        assert!(!before.is_final(), "task {} of run {} has ended already", task.0, self.id.0);
        match before {
            Status::Ready | Status::Parked => self.ready -= 1,
            Status::Running | Status::Committing => self.running -= 1,
            Status::Waiting | Status::Backoff(_) | Status::Completed | Status::Ended(_) => {}
        }
        match status {
            Status::Ready | Status::Parked => self.ready += 1,
            Status::Running | Status::Committing => self.running += 1,
            Status::Completed => self.tally.completed += 1,
            Status::Ended(EndState::Failed | EndState::DeadLettered) => self.tally.failed += 1,
            Status::Ended(EndState::Skipped) => self.tally.skipped += 1,
            Status::Ended(EndState::Cancelled) => self.tally.cancelled += 1,
            Status::Waiting | Status::Backoff(_) => {}
        }
        if status.is_final() {
            self.ended += 1;
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended as usize == self.tasks.len()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            total: u32::try_from(self.tasks.len()).unwrap_or(u32::MAX),
            ended: self.tally,
            running: self.running,
            ready: self.ready,
        }
    }
}
