//! Keeps dead letters: tasks that were given up because they took their agents down, each with the
//! reports of its crashes, until a person has it tried again or throws it away.
//!
//! Folded from the event log, by a running guild and by whoever reads a store.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::event::{Cause, EndState, Event, EventRecord};
use crate::id::{AgentId, Incarnation, RunId, TaskId};
use crate::time::Timestamp;

/// Crash reports that a letter keeps: the newest ones.
const CRASHES_MAX: usize = 32;

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashReport {
    /// When.
    pub at: Timestamp,
    /// Which try of the task.
    pub attempt: u32,
    /// Who performed it.
    pub agent: AgentId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Why it failed.
    pub cause: Cause,
    /// What the panic or error said.
    pub message: Box<str>,
}

/// What a person has done about a letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Nothing yet.
    Waiting,
    /// It was tried again, as this run.
    Retried(RunId),
    /// It was thrown away, with this note.
    Discarded(Box<str>),
}

/// A task that was given up because it took its agents down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The task.
    pub task: TaskId,
    /// When it was given up.
    pub at: Timestamp,
    /// Whether it was given up for its victims, before its attempts were used up.
    pub is_poison: bool,
    /// How its attempts ended, the newest at the end; of very many only the newest.
    pub crashes: Vec<CrashReport>,
    /// How often a person has had it tried again.
    pub retries: u32,
    /// What a person has done about it last.
    pub state: LetterState,
}

/// All dead letters of a guild.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    letters: BTreeMap<TaskId, DeadLetter>,
    /// The order in which they came.
    order: VecDeque<TaskId>,
    letters_max: usize,
    /// Tasks that have failed and not ended.
    failing: BTreeMap<TaskId, Failing>,
}

#[derive(Clone, Debug, Default)]
struct Failing {
    crashes: VecDeque<CrashReport>,
    is_poison: bool,
}

impl DeadLetters {
    /// Returns an empty box for this many letters; of more the oldest are dropped.
    pub fn new(letters_max: usize) -> Self {
        let (letters, order) = (BTreeMap::new(), VecDeque::new());
        Self { letters, order, letters_max, failing: BTreeMap::new() }
    }

    /// Adds the next record of the log; returns the task whose letter there is no room for any more.
    pub fn apply(&mut self, record: &EventRecord) -> Option<TaskId> {
        match &record.event {
            Event::TaskFailed { task, attempt, agent, incarnation, cause, message, .. } => {
                let failing = self.failing.entry(*task).or_default();
                if failing.crashes.len() == CRASHES_MAX {
                    failing.crashes.pop_front();
                }
                let (at, message) = (record.at, message.clone());
                let (attempt, agent, incarnation, cause) = (*attempt, *agent, *incarnation, *cause);
                let crash = CrashReport { at, attempt, agent, incarnation, cause, message };
                failing.crashes.push_back(crash);
            }
            Event::TaskPoisoned { task, .. } => {
                self.failing.entry(*task).or_default().is_poison = true;
            }
            Event::TaskCompleted { task, .. } => {
                self.failing.remove(task);
            }
            Event::TaskEnded { task, state } => {
                let failing = self.failing.remove(task).unwrap_or_default();
                if *state == EndState::DeadLettered {
                    return self.add(*task, record.at, failing);
                }
            }
            Event::LetterRetried { task, run } => {
                if let Some(letter) = self.letters.get_mut(task) {
                    letter.retries += 1;
                    letter.state = LetterState::Retried(*run);
                }
            }
            Event::LetterDiscarded { task, note } => {
                if let Some(letter) = self.letters.get_mut(task) {
                    letter.state = LetterState::Discarded(note.clone());
                }
            }
            _ => {}
        }
        None
    }

    /// Returns the letters, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DeadLetter> {
        self.order.iter().filter_map(|task| self.letters.get(task))
    }

    /// Returns the letter of a task.
    pub fn get(&self, task: TaskId) -> Option<&DeadLetter> {
        self.letters.get(&task)
    }

    fn add(&mut self, task: TaskId, at: Timestamp, failing: Failing) -> Option<TaskId> {
        if self.letters_max == 0 {
            return Some(task);
        }
        let is_full = self.order.len() == self.letters_max;
        let oldest = if is_full { self.order.pop_front() } else { None };
        if let Some(oldest) = oldest {
            self.letters.remove(&oldest);
        }
        let Failing { crashes, is_poison } = failing;
        let (crashes, state) = (crashes.into(), LetterState::Waiting);
        let letter = DeadLetter { task, at, is_poison, crashes, retries: 0, state };
        self.letters.insert(task, letter);
        self.order.push_back(task);
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BootEpoch, RoleId, TaskIndex};

    fn task(index: u32) -> TaskId {
        TaskId { run: RunId(0), index: TaskIndex(index) }
    }

    fn letters(letters_max: usize, events: Vec<Event>) -> DeadLetters {
        let mut letters = DeadLetters::new(letters_max);
        for (seq, event) in (1..).zip(events) {
            letters.apply(&EventRecord { seq, at: Timestamp(seq), event });
        }
        letters
    }

    fn failed(index: u32, attempt: u32) -> Event {
        Event::TaskFailed {
            task: task(index),
            attempt,
            agent: AgentId { role: RoleId(0), index: attempt },
            incarnation: Incarnation::first(BootEpoch(1)),
            cause: Cause::Panic,
            message: "boom".into(),
            retry_at: None,
        }
    }

    fn dead(index: u32) -> Event {
        Event::TaskEnded { task: task(index), state: EndState::DeadLettered }
    }

    #[test]
    fn a_letter_has_the_reports_of_its_crashes_and_other_ends_leave_none() {
        let failed_otherwise = Event::TaskEnded { task: task(1), state: EndState::Failed };
        let poisoned = Event::TaskPoisoned { task: task(0), kills: 2 };
        let events =
            vec![failed(0, 1), failed(1, 1), failed(0, 2), poisoned, dead(0), failed_otherwise];
        let letters = letters(10, events);

        let all: Vec<_> = letters.iter().collect();
        assert_eq!(all.len(), 1);
        assert!(all[0].is_poison);
        let attempts: Vec<_> = all[0].crashes.iter().map(|crash| crash.attempt).collect();
        assert_eq!(attempts, [1, 2]);
        assert!(letters.failing.is_empty(), "nothing is kept of what has ended");
    }

    #[test]
    fn whoever_keeps_more_of_a_letter_learns_which_one_had_to_go() {
        let gone = |letters_max: usize| {
            let mut letters = DeadLetters::new(letters_max);
            let record = |seq, event| EventRecord { seq, at: Timestamp(seq), event };
            [1, 2, 3].map(|seq| letters.apply(&record(seq, dead(seq as u32))))
        };

        assert_eq!(gone(2), [None, None, Some(task(1))]);
        assert_eq!(gone(0), [1, 2, 3].map(|index| Some(task(index))));
    }

    #[test]
    fn a_person_retries_and_discards_and_the_oldest_letters_go_first() {
        let retried = Event::LetterRetried { task: task(1), run: RunId(7) };
        let discarded = Event::LetterDiscarded { task: task(2), note: "known".into() };
        let letters = letters(2, vec![dead(0), dead(1), dead(2), retried, discarded]);

        assert_eq!(letters.get(task(0)), None);
        let states: Vec<_> = letters.iter().map(|letter| letter.state.clone()).collect();
        let expected = [LetterState::Retried(RunId(7)), LetterState::Discarded("known".into())];
        assert_eq!(states, expected);
        assert_eq!(letters.get(task(1)).unwrap().retries, 1);
    }
}
