//! I15: the same seed gives the same log. The log itself has one hash only; whoever ran it twice
//! knows the other.

use super::board::Board;
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I15;

/// Judges the hash.
#[derive(Debug)]
pub(super) struct Repetition;

impl Check for Repetition {
    fn see(&mut self, _: &Seen<'_>, _: &Board, _: &mut Findings) {}

    fn end(&mut self, end: &End<'_>, _: &Board, findings: &mut Findings) {
        match end.knowledge.other_hash {
            None => findings.cannot_judge(I15, "there is no second run to compare with"),
            Some(other) => findings.expect(I15, other == end.log_hash, || {
                let hash = end.log_hash;
                format!("the log has the hash {hash:016x}, and with the same seed {other:016x}")
            }),
        }
    }
}
