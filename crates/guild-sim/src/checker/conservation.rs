//! I13: no ready task waits while an agent that it may have is idle and its quotas are free.
//!
//! Judged whenever time goes on, in virtual time, which stands still while anything can be done. A
//! task that an agent has failed may wait for another agent; what waits for tokens of a rate waits
//! for a timer; and who drains or has lost its scheduler gives nothing out. None of these is judged,
//! nor is the moment in which a fault stalls the one thread of a simulation.

use std::collections::{BTreeMap, BTreeSet};

use guild_core::event::LineEvent;

use super::board::{Board, Task};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I13;
use super::verdict::Violation;

/// Judges waiting.
#[derive(Debug, Default)]
pub(super) struct Conservation {
    /// The ready tasks of each role, by what they demand.
    ready: BTreeMap<String, BTreeMap<Demand, BTreeSet<(u64, u32)>>>,
    at_us: u64,
    is_paused: bool,
    /// What is a violation unless the thread was stalled.
    suspect: Option<Violation>,
}

/// What a ready task waits for besides an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Demand {
    /// Whether there is an agent that it is kept away from.
    is_picky: bool,
    quotas: Vec<(String, u32)>,
}

impl Check for Conservation {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        if seen.at_us > self.at_us {
            self.accuse(findings);
            self.at_us = seen.at_us;
            if board.is_virtual() && !self.is_paused {
                findings.check(I13);
                self.suspect = self.find_waiting(board).map(|message| findings.suspect(message));
            }
        }
        match seen.event {
            LineEvent::GuildStarted { .. } => {
                self.ready.clear();
                self.suspect = None;
                self.is_paused = false;
            }
            LineEvent::PhaseStarted { phase } if &**phase == "drain" => self.is_paused = true,
            LineEvent::IncidentOpened { r#type, .. } if &**r#type == "controller_failed" => {
                self.is_paused = true;
            }
            LineEvent::FaultInjected { r#type, .. } if matches!(&**r#type, "stall" | "swizzle") => {
                self.suspect = None;
            }
            LineEvent::TaskReady { .. } => self.change(seen, true),
            LineEvent::TaskAssigned { .. }
            | LineEvent::TaskEnded { .. }
            | LineEvent::TaskCompleted { .. } => self.change(seen, false),
            LineEvent::RunEnded { .. } => {
                if let Some(run) = seen.place.run {
                    self.forget(run);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>, board: &Board, findings: &mut Findings) {
        if end.is_whole {
            self.accuse(findings);
        }
        let reason = if board.is_virtual() {
            "time never went on"
        } else {
            "the log tells real time, in which messages take time"
        };
        findings.cannot_judge_unchecked(I13, reason);
    }
}

impl Conservation {
    fn accuse(&mut self, findings: &mut Findings) {
        if let Some(violation) = self.suspect.take() {
            findings.violate_at(I13, violation);
        }
    }

    fn change(&mut self, seen: &Seen<'_>, is_ready: bool) {
        let (Some(task), Some(run), Some(no)) = (seen.task(), seen.place.run, seen.place.task)
        else {
            return;
        };
        if task.is_over() {
            return;
        }
        let demand = Demand::of(task);
        if is_ready {
            let role = match self.ready.get_mut(&*task.role) {
                Some(role) => role,
                None => self.ready.entry(task.role.to_string()).or_default(),
            };
            role.entry(demand).or_default().insert((run, no));
        } else if let Some(role) = self.ready.get_mut(&*task.role)
            && let Some(tasks) = role.get_mut(&demand)
        {
            tasks.remove(&(run, no));
            if tasks.is_empty() {
                role.remove(&demand);
            }
        }
    }

    fn forget(&mut self, run: u64) {
        for role in self.ready.values_mut() {
            role.values_mut().for_each(|tasks| tasks.retain(|(of, _)| *of != run));
            role.retain(|_, tasks| !tasks.is_empty());
        }
    }

    /// Returns what waits for nothing, in words.
    fn find_waiting(&self, board: &Board) -> Option<String> {
        let room = board.life.as_ref().map_or(0, |life| life.commits_in_flight_max);
        if board.leases >= room {
            return None;
        }
        for role in board.roles().iter().filter(|role| role.idle > 0) {
            let Some(ready) = self.ready.get(&role.name) else {
                continue;
            };
            for (demand, tasks) in ready {
                let fits = (!demand.is_picky || role.idle > 1) && demand.is_free(board);
                if let Some((run, task)) = tasks.first().filter(|_| fits) {
                    let run = board.run(*run)?;
                    let (task, run) = (&run.task(*task).name, &run.name);
                    let (idle, name, at) = (role.idle, &role.name, board.at_us);
                    return Some(format!(
                        "time goes on after {at} us while task `{task}` of run `{run}` is ready and \
                         {idle} agents of role `{name}` are idle"
                    ));
                }
            }
        }
        None
    }
}

impl Demand {
    fn of(task: &Task) -> Self {
        Self { is_picky: task.avoid.is_some(), quotas: task.terms.quotas.clone() }
    }

    fn is_free(&self, board: &Board) -> bool {
        self.quotas.iter().all(|(name, amount)| {
            board.quotas.get(name).is_some_and(|quota| {
                !quota.is_rate() && quota.limit.saturating_sub(quota.in_use) >= *amount
            })
        })
    }
}
