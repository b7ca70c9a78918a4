//! Draws random numbers by key: `(seed, stream, entity, n)`.
//!
//! With one shared generator one more draw anywhere shifts all later ones; a keyed draw depends on
//! nothing but its key. The mixer is splitmix64 (Steele, Lea, Flood, 2014), chained over the key.

use serde::{Deserialize, Serialize};

/// Names what a draw is for, so that two purposes never share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Jitter of a task's retry delay.
    Retry = 1,
    /// Jitter of an agent's restart delay.
    Restart = 2,
    /// Whether and which fault is injected into an attempt.
    Fault = 3,
    /// Jitter of the retry of a transaction from outside.
    Transact = 4,
    /// How long a simulated task takes.
    Duration = 5,
    /// What a fault plan leaves to the seed: knobs, and whom its faults select.
    Plan = 6,
    /// Order of ready tasks, where it is random.
    Order = 7,
    /// How long a sync of a simulated disk takes.
    Sync = 8,
    /// How long a message of a perturbed simulation is on its way.
    Latency = 9,
    /// What an individual of a simulated population draws.
    Individual = 10,
}

/// The seed of a guild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub u64);

impl Seed {
    /// Draws 64 bits for `(stream, entity, n)`.
    pub fn bits(self, stream: Stream, entity: u64, n: u64) -> u64 {
        [stream as u64, entity, n].iter().fold(mix(self.0), |state, part| mix(state ^ mix(*part)))
    }

    /// Draws a number in `0.0..1.0` for `(stream, entity, n)`.
    pub fn unit(self, stream: Stream, entity: u64, n: u64) -> f64 {
        unit(self.bits(stream, entity, n))
    }
}

/// Maps 64 random bits to `0.0..1.0`.
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
