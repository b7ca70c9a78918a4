//! Checks the history of a guild while it grows, in a bounded memory.
//!
//! A history is checked in windows that overlap by a half, so each commit is seen together with at
//! least [`OVERLAP`] others before or after it. Of commits that are further apart only the order of
//! their versions is compared.

use guild_core::event::{EventRecord, Names};

use super::versions::{Commit, check};
use super::{Recorder, Verdict};

/// Commits that two windows share.
const OVERLAP: usize = 8_192;

/// A history that is checked as it is recorded.
#[derive(Clone, Debug, Default)]
pub struct Running {
    recorder: Recorder,
    window: Vec<Commit>,
    /// How many of the window an earlier one had already.
    known: usize,
    verdict: Verdict,
}

impl Running {
    /// Takes the next event.
    pub fn take(&mut self, record: &EventRecord, names: &dyn Names) {
        self.window.extend(self.recorder.take(record, names));
        if self.window.len() == 2 * OVERLAP {
            self.judge();
            self.window.drain(..OVERLAP);
            self.known = OVERLAP;
        }
    }

    /// Returns what all commits so far come to.
    pub fn verdict(&self) -> Verdict {
        let mut whole = self.clone();
        whole.judge();
        whole.verdict
    }

    fn judge(&mut self) {
        if self.window.len() == self.known {
            return;
        }
        let found = check(&self.window);
        self.verdict.transactions += self.window.len() - self.known;
        self.verdict.dependencies += found.dependencies;
        for anomaly in found.anomalies {
            if !self.verdict.anomalies.contains(&anomaly) {
                self.verdict.add(anomaly.kind, anomaly.transactions, anomaly.message);
            }
        }
        self.verdict.anomalies.sort_by_key(|anomaly| anomaly.kind);
    }
}
