//! I17: the same idempotency key, which is the name of a run, gives one run.

use guild_core::event::LineEvent;

use super::board::{Board, Known};
use super::check::{Check, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I17;

/// Judges submissions.
#[derive(Debug)]
pub(super) struct Submissions;

impl Check for Submissions {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        match seen.event {
            LineEvent::RunSubmitted { run, .. } => {
                findings.expect(I17, matches!(seen.subject.run, Some(Known::Never)), || {
                    format!("run `{run}` is submitted a second time")
                });
            }
            LineEvent::RunJoined { run } => {
                // A guild that has forgotten a run names it by its number.
                let is_known = !matches!(seen.subject.run, Some(Known::Never));
                findings.expect(I17, is_known || run.starts_with('#'), || {
                    format!("run `{run}` is joined and was never submitted")
                });
            }
            _ => {}
        }
    }
}
