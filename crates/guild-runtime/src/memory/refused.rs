//! Says why a commit was refused: to the planner, and to a person where one has to decide.

use guild_core::event::{Cause, Names};
use guild_core::id::{AgentId, Incarnation};
use guild_core::incident::{Action, Attempt, Discarded, IncidentKind, Reason, Report};
use guild_core::planner::Refusal;
use guild_core::time::Timestamp;
use guild_memory::{CommitError, Completion, Memory, Writer};

use super::MemoryActor;

impl MemoryActor {
    /// Opens the incident of a conflict that is left to a person.
    pub(super) fn escalate(
        &self,
        now: Timestamp,
        memory: &mut Memory,
        error: &CommitError,
        agent: Option<(AgentId, Incarnation)>,
        attempt: Option<Attempt>,
    ) {
        let CommitError::Escalated(_) = error else {
            return;
        };
        let (kind, message) = (IncidentKind::MemoryConflict, self.described(error));
        let report = Report {
            cause: Cause::Conflict,
            reason: Reason::Conflict,
            agent,
            attempt,
            ..Report::of_service(kind, message, Action::Decide)
        };
        self.surroundings.incidents.open(now, report).for_each(|event| memory.record(now, event));
    }

    /// Returns an error with the names of whoever came in between.
    fn described(&self, error: &CommitError) -> String {
        let Some(Writer { task, agent }) = error.writer() else {
            return error.to_string();
        };
        self.surroundings.named(|names| {
            format!("{error} by task `{}` of agent `{}`", names.task(task), names.agent(agent))
        })
    }

    pub(super) fn refusal(&self, error: CommitError) -> Refusal {
        let message = self.described(&error);
        match error {
            CommitError::StaleToken => Refusal::StaleToken,
            error if error.is_retryable() => {
                Refusal::Conflict { message: message.into(), reserved: error.is_reserved() }
            }
            _ => Refusal::Invalid { message: message.into() },
        }
    }
}

/// Returns the record of the attempt whose work is in `completion`, should that be refused.
pub(super) fn attempt_of(completion: &Completion) -> Attempt {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let spawned = completion.spawned.as_ref().map_or(0, |spawned| spawned.0.tasks.len());
    Attempt {
        task: completion.task,
        number: completion.attempt,
        token: Some(completion.token),
        last_heartbeat: None,
        discarded: Discarded {
            writes: count(completion.transaction.as_ref().map_or(0, |work| work.writes())),
            spawned: count(spawned),
        },
    }
}
