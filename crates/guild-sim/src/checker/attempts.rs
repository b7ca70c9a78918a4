//! I6: attempts and backoff stay within the policy of the task.
//!
//! Attempts are numbered without a gap. An attempt that fails by the task's own fault counts against
//! `attempts_max`; one that is lost otherwise (`agent_lost`, `conflict`) against
//! `interruptions_max`. No attempt starts before its backoff is over. How long a backoff is can be
//! judged in virtual time only: in real time the log tells when a failure was recorded, and not
//! when it was decided.

use std::time::Duration;

use guild_core::event::{Cause, EndState, LineEvent};
use guild_core::retry::RetryPolicy;
use guild_core::time::micros;

use super::board::{Board, Status, Task};
use super::check::{Check, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I6;

/// Judges attempts.
#[derive(Debug)]
pub(super) struct Attempts;

impl Check for Attempts {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        let Some(task) = seen.task().filter(|task| !task.is_over()) else {
            return;
        };
        match seen.event {
            LineEvent::TaskAssigned { lease, .. } => {
                let (attempt, expected) = (lease.attempt, task.attempts + 1);
                if attempt != expected {
                    findings.violate(I6, || {
                        format!("{} starts attempt {attempt}, not {expected}", seen.task_name())
                    });
                }
            }
            LineEvent::TaskReady { .. } => waits(seen, task, findings),
            LineEvent::TaskEnded { state, .. } => gives_up(seen, task, *state, board, findings),
            LineEvent::TaskFailed { cause, retry_at_us, .. } => {
                findings.check(I6);
                fails(seen, task, *cause, *retry_at_us, board, findings);
            }
            _ => {}
        }
    }
}

/// It may be tried again, and not too early; a restart of the process ends no backoff.
fn waits(seen: &Seen<'_>, task: &Task, findings: &mut Findings) {
    match task.status {
        Status::Backoff(None) => findings
            .violate(I6, || format!("{} is tried again after it was given up", seen.task_name())),
        Status::Backoff(Some(at)) if seen.at_us < at => {
            let early = at - seen.at_us;
            findings.violate(I6, || {
                format!("{} is tried again {early} us before its backoff is over", seen.task_name())
            });
        }
        _ => {}
    }
}

/// A task is given up only after an attempt that is the last one, or when nobody is left who could
/// perform it.
fn gives_up(seen: &Seen<'_>, task: &Task, state: EndState, board: &Board, findings: &mut Findings) {
    let is_failure = matches!(state, EndState::Failed | EndState::DeadLettered);
    let is_last = matches!(task.status, Status::Backoff(None));
    if is_failure && !is_last && !board.roles_lost.contains(&*task.role) {
        findings.violate(I6, || {
            format!("{} is given up, and its last attempt did not say so", seen.task_name())
        });
    }
}

fn fails(
    seen: &Seen<'_>,
    task: &Task,
    cause: Cause,
    retry_at_us: Option<u64>,
    board: &Board,
    findings: &mut Findings,
) {
    let is_interruption = matches!(cause, Cause::AgentLost | Cause::Conflict);
    let (what, count, count_max) = if is_interruption {
        let most = board.life.as_ref().map_or(u32::MAX, |life| life.interruptions_max);
        // The interruption that is one too many ends the task.
        ("interruptions", task.interruptions + 1, most.saturating_add(1))
    } else {
        ("failed attempts", task.failures + 1, task.terms.retry.attempts_max)
    };
    if task.is_poison && retry_at_us.is_some() {
        findings.violate(I6, || format!("{} is poison and tried again", seen.task_name()));
    }
    let is_cancelled = seen.run().is_some_and(|run| run.is_cancelled);
    let Some(at) = retry_at_us else {
        // An error may say that to try again cannot help.
        if count < count_max && cause != Cause::Error && !is_cancelled && !task.is_poison {
            findings.violate(I6, || {
                format!("{} is given up after {count} of {count_max} {what}", seen.task_name())
            });
        }
        return;
    };
    if count >= count_max {
        findings.violate(I6, || {
            format!("{} is tried again after {count} of {count_max} {what}", seen.task_name())
        });
    }
    // An attempt whose process ended is tried again at once.
    let is_orphaned = task.lease.is_some_and(|lease| lease.is_orphaned);
    if board.is_virtual() && !is_orphaned {
        let policy =
            if is_interruption { RetryPolicy::interrupted() } else { task.terms.retry.clone() };
        let (least, most) = (policy.delay_after(count, 1.0), policy.delay_after(count, 0.0));
        let delay = Duration::from_micros(at.saturating_sub(seen.at_us));
        // An error may ask for a longer delay.
        let is_short = micros(delay) + 1 < micros(least);
        let is_long = micros(delay) > micros(most) + 1 && cause != Cause::Error;
        if is_short || is_long {
            findings.violate(I6, || {
                format!(
                    "{} is tried again after {delay:?}, and its policy says {least:?} to {most:?}",
                    seen.task_name()
                )
            });
        }
    }
}
