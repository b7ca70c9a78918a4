//! I5: one live lease per task, and results only with the current token.
//!
//! A lease lives from `task_assigned` to the completion, failure, return or cancellation of its
//! attempt. Tokens only grow, over all tasks and starts of the process, and a lease is given to a
//! life of an agent that is up.

use guild_core::event::{LeaseText, LineEvent};

use super::board::{Board, Lease, Task};
use super::check::{Check, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I5;

/// Judges leases.
#[derive(Debug)]
pub(super) struct Leases;

impl Check for Leases {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        if let LineEvent::StaleResult { token, .. } = seen.event {
            findings.expect(I5, *token <= board.token, || {
                format!("{}: a late answer with the token {token}, which nobody got", name(seen))
            });
        }
        let Some(task) = seen.task().filter(|task| !task.is_over()) else {
            return;
        };
        match seen.event {
            LineEvent::TaskAssigned { lease, .. } => assign(seen, task, lease, board, findings),
            LineEvent::TaskCompleted { lease, .. } => {
                give_up(seen, task, lease, "completes", findings);
            }
            LineEvent::TaskReturned { lease, .. } => {
                give_up(seen, task, lease, "is returned", findings);
            }
            LineEvent::TaskFailed { attempt, incarnation, .. } => {
                let of_it = |lease: &Lease| {
                    lease.attempt == *attempt
                        && lease.incarnation == *incarnation
                        && board.agents()[lease.agent].name == agent_of(seen)
                };
                findings.expect(I5, task.lease.as_ref().is_some_and(of_it), || {
                    let (agent, task) = (agent_of(seen), name(seen));
                    format!("attempt {attempt} of {task} fails at `{agent}`, who has no such lease")
                });
            }
            LineEvent::TaskReady { .. } if task.lease.is_some() => {
                findings.violate(I5, || format!("{} is ready while its lease lives", name(seen)));
            }
            _ => {}
        }
    }
}

fn assign(
    seen: &Seen<'_>,
    task: &Task,
    lease: &LeaseText<'_>,
    board: &Board,
    findings: &mut Findings,
) {
    let token = lease.token;
    findings.check(I5);
    if let Some(live) = &task.lease {
        findings.violate(I5, || {
            let (name, live) = (name(seen), live.token);
            format!("{name} is assigned while its lease with the token {live} lives")
        });
    }
    if token <= board.token {
        findings.violate(I5, || {
            format!(
                "{} gets the token {token}, which is not greater than {}",
                name(seen),
                board.token
            )
        });
    }
    let agent = seen.agent();
    if !agent.is_some_and(|agent| agent.is_up && agent.incarnation == lease.incarnation) {
        findings.violate(I5, || {
            let (agent, life) = (&lease.agent, lease.incarnation);
            format!("{} is assigned to `{agent}` in its life {life}, which is not up", name(seen))
        });
    }
}

fn give_up(
    seen: &Seen<'_>,
    task: &Task,
    lease: &LeaseText<'_>,
    what: &str,
    findings: &mut Findings,
) {
    let is_current = task.lease.as_ref().is_some_and(|live| {
        live.token == lease.token
            && live.attempt == lease.attempt
            && live.incarnation == lease.incarnation
            && seen.agent().is_some_and(|agent| *agent.name == *lease.agent)
    });
    findings.expect(I5, is_current, || {
        let (name, token) = (name(seen), lease.token);
        match &task.lease {
            Some(live) => format!(
                "{name} {what} with the token {token} of attempt {}, and its lease has the token \
                 {} of attempt {}",
                lease.attempt, live.token, live.attempt
            ),
            None => format!("{name} {what} with the token {token} and has no lease"),
        }
    });
}

fn agent_of(seen: &Seen<'_>) -> std::sync::Arc<str> {
    seen.agent().map_or_else(|| "?".into(), |agent| std::sync::Arc::clone(&agent.name))
}

fn name(seen: &Seen<'_>) -> String {
    seen.task_name()
}
