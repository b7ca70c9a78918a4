//! Keeps what clients saw of lists in the shared memory: a history for the list-append check.
//!
//! A client tells what it reads and appends before anybody knows whether that is committed; the event
//! log tells the rest. Values are all that counts here: which versions the memory says that a
//! transaction has read is the business of [`versions`](super::versions).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::event::{Event, EventRecord};
use guild_core::id::FencingToken;

use super::Verdict;
use super::list_append::{History, Operation, Outcome, Transaction, check};
use crate::world::LogReader;

/// What clients saw; every clone is the same. It reads the log of their guild along.
#[derive(Clone, Debug, Default)]
pub struct Clients(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// What each attempt did, by the token of its lease.
    attempts: BTreeMap<FencingToken, Vec<Operation>>,
    /// The tokens that were granted (false) and that completed their tasks (true), in order.
    moments: Vec<(FencingToken, bool)>,
}

impl Clients {
    /// Notes what the attempt with this token reads and appends, in order. The element that it
    /// appends must be its own: nobody else appends it to any list.
    pub fn saw(&self, token: FencingToken, operations: Vec<Operation>) {
        self.seen().attempts.insert(token, operations);
    }

    /// Returns whether what was seen can be explained by one order of the transactions, once the log
    /// is complete: an attempt that has not completed its task by then has left nothing.
    pub fn verdict(&self) -> Verdict {
        check(&self.seen().history())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReader for Clients {
    fn record(&mut self, record: &EventRecord, _: &str) {
        match record.event {
            Event::TaskAssigned { token, .. } => self.seen().moments.push((token, false)),
            Event::TaskCompleted { token, .. } => self.seen().moments.push((token, true)),
            _ => {}
        }
    }
}

impl Seen {
    fn history(&self) -> History {
        let mut history = History::default();
        let mut places = BTreeMap::new();
        for (index, (token, operations)) in (0..).zip(&self.attempts) {
            places.insert(*token, index);
            let (operations, outcome) = (operations.clone(), Outcome::Failed);
            let index = u64::from(index);
            history.transactions.push(Transaction { index, operations, outcome });
        }
        for (token, is_end) in &self.moments {
            let Some(place) = places.get(token) else {
                continue;
            };
            if *is_end {
                history.transactions[*place as usize].outcome = Outcome::Committed;
            }
            history.moments.push((*place, *is_end));
        }
        let lists = history.transactions.iter().flat_map(|transaction| &transaction.operations);
        let last = lists.map(Operation::key).max();
        history.keys = (0..last.map_or(0, |last| last + 1)).map(list).collect();
        history
    }
}

/// Returns the key of a list of clients in the shared memory.
pub fn list(number: u32) -> String {
    format!("lists/{number}")
}

#[cfg(test)]
mod tests {
    use guild_core::id::{AgentId, CommitVersion, Incarnation, RoleId, RunId, TaskId, TaskIndex};
    use guild_core::time::Timestamp;

    use super::super::AnomalyKind;
    use super::*;

    /// A log of attempts, each by its token.
    struct Told(Clients, u64);

    impl Told {
        fn new() -> Self {
            Self(Clients::default(), 0)
        }

        fn begins(&mut self, token: u64) {
            self.tell(token, |task, agent, incarnation, token| Event::TaskAssigned {
                task,
                attempt: 1,
                agent,
                incarnation,
                token,
            });
        }

        fn completes(&mut self, token: u64) {
            let version = CommitVersion(self.1);
            self.tell(token, |task, agent, incarnation, token| Event::TaskCompleted {
                task,
                attempt: 1,
                agent,
                incarnation,
                token,
                version,
            });
        }

        fn tell(
            &mut self,
            token: u64,
            event: impl FnOnce(TaskId, AgentId, Incarnation, FencingToken) -> Event,
        ) {
            self.1 += 1;
            let task = TaskId { run: RunId(0), index: TaskIndex(u32::try_from(token).unwrap()) };
            let agent = AgentId { role: RoleId(0), index: 0 };
            let event = event(task, agent, Incarnation(1), FencingToken(token));
            self.0.record(&EventRecord { seq: self.1, at: Timestamp(self.1), event }, "");
        }

        /// An attempt that has read this and appended its token.
        fn saw(&self, token: u64, read: &[i64]) {
            let read = Operation::Read { key: 0, elements: Some(read.to_vec()) };
            let append = Operation::Append { key: 0, element: token.cast_signed() };
            self.0.saw(FencingToken(token), vec![read, append]);
        }
    }

    #[test]
    fn attempts_one_after_the_other_are_fine_and_one_that_failed_has_left_nothing() {
        let mut told = Told::new();
        for (token, read) in [(7, &[][..]), (8, &[7]), (9, &[7])] {
            told.begins(token);
            told.saw(token, read);
            if token != 8 {
                told.completes(token);
            }
        }

        let verdict = told.0.verdict();

        assert_eq!((verdict.anomalies, verdict.transactions), (Vec::new(), 3));
    }

    #[test]
    fn what_a_failed_attempt_appended_is_not_read() {
        let mut told = Told::new();
        told.begins(7);
        told.saw(7, &[]);
        told.begins(8);
        told.saw(8, &[7]);
        told.completes(8);

        assert_eq!(told.0.verdict().kinds(), [AnomalyKind::G1a]);
    }

    #[test]
    fn who_begins_after_an_end_reads_what_was_appended_by_then() {
        let stale = |is_after: bool| {
            let mut told = Told::new();
            told.begins(7);
            told.saw(7, &[]);
            if !is_after {
                told.begins(8);
            }
            told.completes(7);
            if is_after {
                told.begins(8);
            }
            let reads = vec![Operation::Read { key: 0, elements: Some(Vec::new()) }];
            told.0.saw(FencingToken(8), reads);
            told.completes(8);
            told.0.verdict().kinds()
        };

        assert_eq!(stale(true), [AnomalyKind::GSingleRealtime]);
        assert_eq!(stale(false), []);
    }
}
