//! Tells work that an attempt cannot end by itself that the attempt is over.
//!
//! A revoked attempt loses its future at the next await, and everything that the future owns. What it
//! has handed to other threads goes on, and so does a loop without an await: they ask here. The
//! scheduler notes the end on its own thread, so a loop that keeps the agent's thread hears of it,
//! also when it asks for the first time after that. An agent has one lease at a time and tokens only
//! grow: one number per agent, the newest token that is over, answers for all its attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guild_core::id::{AgentId, FencingToken};

/// Says whether an attempt is over; every clone is about the same attempt, and can go to any thread.
#[derive(Clone, Debug)]
pub struct Cancellation {
    list: Cancellations,
    agent: AgentId,
    token: FencingToken,
}

impl Cancellation {
    /// Returns whether the attempt is over: cancelled, timed out, crashed, shut down or done.
    /// Nothing that is done for it from now on counts.
    pub fn is_cancelled(&self) -> bool {
        self.list.is_over(self.agent, self.token)
    }
}

/// Ends an attempt when it is dropped with it.
#[derive(Debug)]
pub(crate) struct AttemptEnd(pub(crate) Cancellation);

impl Drop for AttemptEnd {
    fn drop(&mut self) {
        let Cancellation { list, agent, token } = &self.0;
        list.cancel(*agent, *token);
    }
}

/// Which attempts are over; every clone is the same list.
#[derive(Clone, Debug)]
pub(crate) struct Cancellations(Arc<List>);

#[derive(Debug)]
struct List {
    /// The newest token that is over, of each agent of each role.
    over: Vec<Box<[AtomicU64]>>,
    /// Whether all attempts are over.
    all: AtomicBool,
}

impl Cancellations {
    /// Returns a list for so many agents of each role.
    pub(crate) fn new(agents: &[u32]) -> Self {
        let role = |agents: &u32| (0..*agents).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(List {
            over: agents.iter().map(role).collect(),
            all: AtomicBool::new(false),
        }))
    }

    /// Returns what tells whether the attempt of this lease is over.
    pub(crate) fn of(&self, agent: AgentId, token: FencingToken) -> Cancellation {
        Cancellation { list: self.clone(), agent, token }
    }

    /// Returns whether the attempt of this lease is over.
    pub(crate) fn is_over(&self, agent: AgentId, token: FencingToken) -> bool {
        self.0.all.load(Ordering::Acquire)
            || self.over(agent).is_none_or(|over| over.load(Ordering::Acquire) >= token.0)
    }

    /// Ends the attempt of this lease.
    pub(crate) fn cancel(&self, agent: AgentId, token: FencingToken) {
        if let Some(over) = self.over(agent) {
            over.fetch_max(token.0, Ordering::AcqRel);
        }
    }

    /// Ends all attempts.
    pub(crate) fn cancel_all(&self) {
        self.0.all.store(true, Ordering::Release);
    }

    fn over(&self, agent: AgentId) -> Option<&AtomicU64> {
        self.0.over.get(usize::from(agent.role.0))?.get(agent.index as usize)
    }
}

#[cfg(test)]
mod tests {
    use guild_core::id::RoleId;

    use super::*;

    #[test]
    fn an_end_is_heard_of_also_by_who_asks_first_after_it() {
        let list = Cancellations::new(&[0, 2]);
        let agent = |index| AgentId { role: RoleId(1), index };

        list.cancel(agent(1), FencingToken(7));

        assert!(list.of(agent(1), FencingToken(7)).is_cancelled());
        assert!(!list.of(agent(1), FencingToken(8)).is_cancelled(), "its next lease goes on");
        assert!(!list.of(agent(0), FencingToken(7)).is_cancelled(), "another agent goes on");
        list.cancel_all();
        assert!(list.of(agent(0), FencingToken(9)).is_cancelled());
    }
}
