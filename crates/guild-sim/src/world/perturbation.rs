//! Shows a world more than the one order of events that its code happens to give.
//!
//! On one thread and without faults, messages always arrive in the order in which they were sent and
//! equal tasks go in the order in which they were added: a bug that needs another order stays hidden
//! for ever. A perturbed world draws both from its seed, so each seed is another order, and the same
//! seed the same one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use guild_core::draw::{Seed, Stream};
use guild_core::event::EventRecord;
use guild_core::time::micros;
use guild_runtime::{FaultPoint, Hit, Strike};

/// What a world perturbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perturbation {
    /// How long an assignment to an agent, or its result, is on its way at most; each draws its own
    /// time in whole units of the world's [`Resolution`](super::Resolution). Zero: no jitter.
    pub latency_max: Duration,
    /// Whether tasks that are equal in their order go in one that the seed draws.
    pub shuffle_ties: bool,
}

impl Default for Perturbation {
    /// Messages are up to 3 ms late, and ties are shuffled.
    fn default() -> Self {
        Self { latency_max: Duration::from_millis(3), shuffle_ties: true }
    }
}

/// Makes messages late, and lets the faults below strike as they would.
pub(super) struct Jitter {
    pub(super) seed: Seed,
    pub(super) latency_max: Duration,
    /// What timers of the world can tell apart.
    pub(super) unit: Duration,
    pub(super) below: Option<Arc<dyn FaultPoint>>,
}

impl FaultPoint for Jitter {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        self.below.as_ref()?.strike(hit)
    }

    fn struck(&self, tag: u64, number: u64) {
        if let Some(below) = &self.below {
            below.struck(tag, number);
        }
    }

    fn told(&self, record: &EventRecord) {
        if let Some(below) = &self.below {
            below.told(record);
        }
    }

    fn latency(&self, hit: &Hit<'_>) -> Duration {
        let below = self.below.as_ref().map_or(Duration::ZERO, |below| below.latency(hit));
        let (Some(task), Some(attempt)) = (hit.task, hit.attempt) else {
            return below;
        };
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let n = u64::from(attempt) << 8 | hit.site as u64;
        let units = micros(self.latency_max) / micros(self.unit).max(1) + 1;
        let drawn = self.seed.bits(Stream::Latency, entity, n) % units;
        below + self.unit * u32::try_from(drawn).unwrap_or(u32::MAX)
    }

    fn stall(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        match &self.below {
            Some(below) => below.stall(duration),
            None => Box::pin(std::future::ready(())),
        }
    }
}
