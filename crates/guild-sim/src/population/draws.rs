//! Draws the random numbers of one individual in one of its steps.
//!
//! Draws are keyed: seed, individual, step, and which draw of the step it is. What one individual
//! draws shifts nothing for another one, and a step that is tried again after a crash draws the same.

use std::convert::Infallible;

use guild_core::draw::{Seed, Stream};
use rand::TryRng;

use super::IndividualId;

/// A source of random numbers that a seed repeats. It is a generator of `rand` (and so serves the
/// distributions of `rand_distr`), and has what models need most at hand.
///
/// # Examples
/// ```
/// use guild_sim::population::{Draws, IndividualId};
///
/// let mut draws = Draws::of(7, IndividualId(3), 1);
/// let again = Draws::of(7, IndividualId(3), 1).unit();
/// assert_eq!(draws.unit(), again);
/// assert!(draws.below(6) < 6);
/// ```
#[derive(Clone, Debug)]
pub struct Draws {
    step: Seed,
    drawn: u64,
}

impl Draws {
    /// Returns the draws of an individual in its n-th step; 0 is its birth.
    pub fn of(seed: u64, individual: IndividualId, step: u64) -> Self {
        let step = Seed(Seed(seed).bits(Stream::Individual, individual.0.into(), step));
        Self { step, drawn: 0 }
    }

    /// Draws 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.drawn += 1;
        self.step.bits(Stream::Individual, 0, self.drawn)
    }

    /// Draws a number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        guild_core::draw::unit(self.bits())
    }

    /// Draws a whole number below `end`, each as likely as the others.
    ///
    /// # Panics
    /// `end` is 0: there is no such number.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no whole number below 0");
        // Lemire, "Fast Random Integer Generation in an Interval" (2019): without bias.
        let reject_below = end.wrapping_neg() % end;
        loop {
            let wide = u128::from(self.bits()) * u128::from(end);
            if wide as u64 >= reject_below {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Draws a number from `low` up to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Returns whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Draws one of these, each as likely as the others; none of nothing.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() {
            return None;
        }
        from.get(self.below(from.len() as u64) as usize)
    }
}

impl TryRng for Draws {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.bits() >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.bits())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Normal};

    use super::*;

    #[test]
    fn draws_of_one_are_not_those_of_another_or_of_another_step() {
        let first = |seed, individual, step| Draws::of(seed, IndividualId(individual), step).bits();
        let drawn = [first(1, 0, 0), first(2, 0, 0), first(1, 1, 0), first(1, 0, 1)];

        for (place, one) in drawn.iter().enumerate() {
            assert!(drawn.iter().skip(place + 1).all(|other| one != other), "{drawn:?}");
        }
        assert_eq!(first(1, 0, 1), first(1, 0, 1));
    }

    #[test]
    fn whole_numbers_are_as_likely_as_each_other() {
        let mut draws = Draws::of(3, IndividualId(0), 0);
        let mut found = [0_i32; 6];

        for _ in 0..60_000 {
            found[draws.below(6) as usize] += 1;
        }

        assert!(found.iter().all(|count| (count - 10_000).abs() < 400), "{found:?}");
    }

    #[test]
    fn distributions_of_rand_distr_take_draws_as_their_generator() {
        let mut draws = Draws::of(3, IndividualId(0), 0);
        let normal = Normal::new(10.0, 2.0).unwrap();

        let sum: f64 = (0..20_000).map(|_| normal.sample(&mut draws)).sum();

        assert!((sum / 20_000.0 - 10.0).abs() < 0.05, "{sum}");
    }
}
