//! I14: nothing is left over after the end: no permit that is held for nobody, and, as far as the
//! harness has looked, no tasks, timers, entries of maps or messages.

use guild_core::event::LineEvent;

use super::board::Board;
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I14;

/// Judges what is left.
#[derive(Debug)]
pub(super) struct Leftovers;

impl Check for Leftovers {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        // While another run goes on, its permits are given back after its completions are told.
        if !matches!(seen.event, LineEvent::RunEnded { .. })
            || seen.run().is_none()
            || board.runs().count() > 1
        {
            return;
        }
        findings.check(I14);
        for (name, quota) in &board.quotas {
            if !quota.is_rate() && quota.in_use > 0 {
                let held = quota.in_use;
                findings.violate(I14, || {
                    format!("all runs have ended, and {held} permits of quota `{name}` are held")
                });
            }
        }
    }

    fn end(&mut self, end: &End<'_>, _: &Board, findings: &mut Findings) {
        for (what, count) in end.knowledge.leftovers.iter().flatten() {
            findings.expect(I14, *count == 0, || format!("{count} {what} are left after the end"));
        }
        if end.knowledge.leftovers.is_none() {
            findings.cannot_judge(I14, "nobody looked for what is left outside of the log");
        }
    }
}
