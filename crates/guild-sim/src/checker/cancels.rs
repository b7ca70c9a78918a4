//! I16: after an acknowledged cancel no attempt starts.

use guild_core::event::LineEvent;

use super::board::Board;
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I16;

/// Judges what happens after a cancel.
#[derive(Debug)]
pub(super) struct Cancels;

impl Check for Cancels {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        let is_cancelled = seen.run().is_some_and(|run| run.is_cancelled);
        match seen.event {
            LineEvent::RunCancelled { .. } => findings.check(I16),
            LineEvent::TaskAssigned { .. } | LineEvent::TaskReady { .. } if is_cancelled => {
                findings.violate(I16, || {
                    format!("{} goes on after its run was cancelled", seen.task_name())
                });
            }
            _ => {}
        }
    }

    fn end(&mut self, _: &End<'_>, _: &Board, findings: &mut Findings) {
        findings.cannot_judge_unchecked(I16, "no run was cancelled");
    }
}
