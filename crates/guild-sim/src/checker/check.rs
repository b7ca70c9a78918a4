//! What every check is given, and the list of all of them.

use std::fmt::Debug;

use guild_core::event::LineEvent;

use super::board::{Agent, Board, Known, Place, Run, Subject, Task};
use super::findings::Findings;
use super::knowledge::Knowledge;
use super::{
    attempts, cancels, conservation, disturbance, effects, ends, history, incidents, leases,
    leftovers, liveness, order, quotas, recovery, repetition, submissions,
};

/// A line, before the board takes it in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'s> {
    pub(super) at_us: u64,
    pub(super) event: &'s LineEvent<'s>,
    pub(super) subject: Subject<'s>,
    pub(super) place: Place,
    /// Events that were there and that this start of the process does not know.
    pub(super) lost: u64,
}

impl<'s> Seen<'s> {
    /// Returns the run that the event is about, if it is live.
    pub(super) fn run(&self) -> Option<&'s Run> {
        match self.subject.run {
            Some(Known::Live(run)) => Some(run),
            Some(Known::Over | Known::Never) | None => None,
        }
    }

    /// Returns the task that the event is about, if its run is live.
    pub(super) fn task(&self) -> Option<&'s Task> {
        self.subject.task
    }

    /// Returns the agent that the event is about.
    pub(super) fn agent(&self) -> Option<&'s Agent> {
        self.subject.agent
    }

    /// Names the task that the event is about, for a person.
    pub(super) fn task_name(&self) -> String {
        match self.event.task() {
            Some(task) => format!("task `{}` of run `{}`", task.task, task.run),
            None => "no task".to_owned(),
        }
    }
}

/// The end of a log.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'e> {
    pub(super) knowledge: &'e Knowledge,
    pub(super) at_us: u64,
    pub(super) log_hash: u64,
    /// Whether the log was read to its end.
    pub(super) is_whole: bool,
}

/// Judges one promise, or two that are the same look at the log.
pub(super) trait Check: Debug + Send {
    /// Judges a line before the board takes it in.
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings);

    /// Judges what only the end shows.
    fn end(&mut self, _end: &End<'_>, _board: &Board, _findings: &mut Findings) {}
}

/// Returns all checks, fresh.
pub(super) fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::new(ends::Ends),
        Box::new(effects::Effects::default()),
        Box::new(order::Order),
        Box::new(leases::Leases),
        Box::new(attempts::Attempts),
        Box::new(quotas::Quotas::default()),
        Box::new(history::History::default()),
        Box::new(recovery::Recovery::default()),
        Box::new(incidents::Incidents::default()),
        Box::new(disturbance::Disturbance::default()),
        Box::new(liveness::Liveness::default()),
        Box::new(conservation::Conservation::default()),
        Box::new(leftovers::Leftovers),
        Box::new(repetition::Repetition),
        Box::new(cancels::Cancels),
        Box::new(submissions::Submissions),
    ]
}
