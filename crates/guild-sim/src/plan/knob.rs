//! Holds a value that is fixed or drawn anew for each seed.

use std::time::Duration;

use guild_core::draw::{Seed, Stream, unit};
use guild_core::time::micros;

/// A value of a plan: fixed, or drawn evenly between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Knob<T> {
    /// The same for every seed.
    Fixed(T),
    /// Another for each seed, both bounds included.
    Between {
        /// The least.
        min: T,
        /// The greatest.
        max: T,
    },
}

/// What a knob can hold.
pub trait Range: Copy {
    /// Returns the value at `share` (0.0..1.0) of the way from `min` to `max`.
    fn between(min: Self, max: Self, share: f64) -> Self;
}

impl<T: Range> Knob<T> {
    /// Draws the value of the knob named `key`; no other knob changes what this one gives.
    pub fn draw(&self, seed: Seed, key: &str) -> T {
        match *self {
            Self::Fixed(value) => value,
            Self::Between { min, max } => {
                T::between(min, max, unit(seed.bits(Stream::Plan, number_of(key), 0)))
            }
        }
    }

    /// Returns the least value.
    pub fn min(&self) -> T {
        match *self {
            Self::Fixed(value) | Self::Between { min: value, .. } => value,
        }
    }

    /// Returns the greatest value.
    pub fn max(&self) -> T {
        match *self {
            Self::Fixed(value) | Self::Between { max: value, .. } => value,
        }
    }
}

impl Range for u64 {
    fn between(min: Self, max: Self, share: f64) -> Self {
        let width = (max - min).saturating_add(1);
        min + ((share * width as f64) as Self).min(max - min)
    }
}

impl Range for u32 {
    fn between(min: Self, max: Self, share: f64) -> Self {
        let value = u64::between(min.into(), max.into(), share);
        Self::try_from(value).unwrap_or(max)
    }
}

impl Range for f64 {
    fn between(min: Self, max: Self, share: f64) -> Self {
        min + (max - min) * share
    }
}

impl Range for Duration {
    fn between(min: Self, max: Self, share: f64) -> Self {
        Self::from_micros(u64::between(micros(min), micros(max), share))
    }
}

/// Makes a number of a name, for keyed draws: FNV-1a (Fowler, Noll, Vo), so that a seed draws in every
/// version of Guild what it drew in the first.
pub(super) fn number_of(name: &str) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knob_reaches_both_bounds_and_nothing_beyond() {
        let knob = Knob::Between { min: 3u32, max: 5 };
        let mut seen = [0; 8];

        for seed in 0..300 {
            seen[knob.draw(Seed(seed), "knobs.mailbox") as usize] += 1;
        }

        assert!(seen[3] > 50 && seen[4] > 50 && seen[5] > 50, "{seen:?}");
        assert_eq!(seen.iter().sum::<i32>(), seen[3] + seen[4] + seen[5]);
    }

    #[test]
    fn two_knobs_of_one_seed_are_drawn_apart() {
        let knob = Knob::Between { min: 0u64, max: u64::MAX };

        assert_ne!(knob.draw(Seed(1), "a"), knob.draw(Seed(1), "b"));
        assert_ne!(knob.draw(Seed(1), "a"), knob.draw(Seed(2), "a"));
        assert_eq!(knob.draw(Seed(1), "a"), knob.draw(Seed(1), "a"));
    }
}
