//! Holds commits that wait until what they would change is no longer reserved for another one.

use crate::message::MemoryMessage;

/// Commits that wait, in the order in which they came.
#[derive(Default)]
pub(super) struct Parked {
    waiting: Vec<MemoryMessage>,
    /// The reservations that they were last looked at with; none: look whatever they are.
    seen_epoch: Option<u64>,
    has_timer: bool,
}

impl Parked {
    /// Adds a commit. Returns whether somebody has to say [`look_again`](Self::look_again) in time.
    pub(super) fn push(&mut self, message: MemoryMessage) -> bool {
        self.waiting.push(message);
        !std::mem::replace(&mut self.has_timer, true)
    }

    /// Says that reservations have run out.
    pub(super) fn look_again(&mut self) {
        (self.seen_epoch, self.has_timer) = (None, false);
    }

    /// Takes all commits if the reservations are others than when they were last looked at.
    pub(super) fn take(&mut self, epoch: u64) -> Option<Vec<MemoryMessage>> {
        let is_new = self.seen_epoch.replace(epoch) != Some(epoch);
        (is_new && !self.waiting.is_empty()).then(|| std::mem::take(&mut self.waiting))
    }
}
