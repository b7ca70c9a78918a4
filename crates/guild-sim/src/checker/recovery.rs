//! I9: what was acknowledged at `disk` is there after a kill.
//!
//! What a log shows was acknowledged. A start of the process after the first one goes on where the
//! log ends: with the next `seq`, a greater epoch, and the next version of the memory. A start that
//! goes back has lost what lies between. (That nothing which has ended runs again is I2.)

use guild_core::event::LineEvent;

use super::board::{Board, Life};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I9;

/// Judges starts after the first.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Whether the process has started again and nothing was committed since.
    is_fresh: bool,
    was_volatile: bool,
}

impl Check for Recovery {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        match (seen.event, &board.life) {
            (LineEvent::GuildStarted { epoch, .. }, Some(before)) => {
                self.recover(*epoch, before, seen.lost, findings);
            }
            (LineEvent::GuildStarted { epoch, .. }, None) if *epoch > 1 => {
                findings.violate(I9, || {
                    format!(
                        "the process starts in epoch {epoch}, and the log knows no start before"
                    )
                });
            }
            (
                LineEvent::MemoryCommitted { version, .. }
                | LineEvent::TaskCompleted { version, .. },
                _,
            ) if std::mem::take(&mut self.is_fresh) => {
                let expected = board.version + 1;
                if *version < expected {
                    findings.violate(I9, || {
                        format!("after a restart version {version} is committed again: versions before {expected} were lost")
                    });
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, end: &End<'_>, board: &Board, findings: &mut Findings) {
        if let Some(acknowledged) = end.knowledge.acknowledged_version {
            findings.expect(I9, acknowledged <= board.version, || {
                let newest = board.version;
                format!("version {acknowledged} was acknowledged, and the log ends with {newest}")
            });
        }
        let reason = if self.was_volatile {
            "the process started again, but nothing was promised at `disk`"
        } else {
            "the process never started again"
        };
        findings.cannot_judge_unchecked(I9, reason);
    }
}

impl Recovery {
    fn recover(&mut self, epoch: u64, before: &Life, lost: u64, findings: &mut Findings) {
        self.is_fresh = true;
        if epoch <= before.epoch {
            findings.violate(I9, || {
                format!("the process starts in epoch {epoch} after epoch {}", before.epoch)
            });
        }
        if !before.is_durable {
            self.was_volatile = true;
            return;
        }
        findings.expect(I9, lost == 0, || {
            format!("{lost} events were acknowledged at `disk` and are gone after the restart")
        });
    }
}
