//! Strikes attempts at random: the short form of chaos, `crash=0.05,hang=0.01`.

use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::id::TaskId;

use super::{Fault, FaultPoint, Hit, Site, Strike};

/// How much a slow attempt or a late message is late.
const LATE_BY: Duration = Duration::from_millis(100);

/// The faults that the short form knows, and where they strike.
const KINDS: [(&str, Fault, &[Site]); 7] = [
    ("crash", Fault::Crash, &[Site::BeforePerform, Site::AfterPerform]),
    ("hang", Fault::Hang, &[Site::BeforePerform]),
    ("slow", Fault::Slow(LATE_BY), &[Site::BeforePerform]),
    ("exit", Fault::Exit, &[Site::BeforePerform, Site::AfterPerform]),
    ("drop", Fault::Lose, &[Site::Assign, Site::HandIn]),
    ("duplicate", Fault::Repeat, &[Site::Assign, Site::HandIn]),
    ("delay", Fault::Delay(LATE_BY), &[Site::Assign, Site::HandIn]),
];

/// Strikes attempts at random, repeatably by seed; an attempt is struck once at most.
#[derive(Clone, Debug, PartialEq)]
pub struct RandomFaults {
    seed: Seed,
    /// The probability of each of [`KINDS`].
    rates: [f64; KINDS.len()],
}

/// A chaos specification that cannot be understood.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ChaosError {
    /// A part is no `name=value`.
    #[error("`{0}` is no fault: write name=probability, for example crash=0.05")]
    Shape(String),
    /// A fault of this name does not exist.
    #[error(
        "unknown fault `{0}`: there are crash, hang, slow, exit, drop, duplicate and delay; the \
         others need a fault plan"
    )]
    Unknown(String),
    /// A probability is no number from 0 to 1.
    #[error("`{value}` is no probability for `{fault}`: write a number from 0 to 1")]
    Probability {
        /// The fault.
        fault: String,
        /// What was written.
        value: String,
    },
    /// A fault is named twice.
    #[error("the fault `{0}` is named twice")]
    Duplicate(String),
    /// The probabilities add up to more than 1.
    #[error("the probabilities of all faults add up to {0}, which is more than 1")]
    Sum(f64),
}

impl RandomFaults {
    /// Reads `crash=0.05,hang=0.01,slow=0.1`: the probability of each fault per attempt.
    ///
    /// A crash or an exit strikes before or after the work and a message fault the assignment or
    /// the result, with equal chance; `slow` and `delay` add 100 ms.
    ///
    /// # Errors
    /// A part is no `name=value`, a fault is unknown or named twice, or a probability is not
    /// within 0 to 1, alone or in sum.
    pub fn parse(spec: &str, seed: Seed) -> Result<Self, ChaosError> {
        let mut rates: [Option<f64>; KINDS.len()] = [None; KINDS.len()];
        for part in spec.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| ChaosError::Shape(part.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let place = KINDS
                .iter()
                .position(|(known, ..)| *known == name)
                .ok_or_else(|| ChaosError::Unknown(name.to_owned()))?;
            let probability =
                value.parse::<f64>().ok().filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
                    ChaosError::Probability { fault: name.to_owned(), value: value.to_owned() }
                })?;
            if rates[place].replace(probability).is_some() {
                return Err(ChaosError::Duplicate(name.to_owned()));
            }
        }
        let rates = rates.map(|rate| rate.unwrap_or(0.0));
        let sum: f64 = rates.iter().sum();
        if sum > 1.0 + f64::EPSILON {
            return Err(ChaosError::Sum(sum));
        }
        Ok(Self { seed, rates })
    }

    /// Draws what strikes an attempt, and at which of its sites.
    fn draw(&self, site: Site, task: TaskId, attempt: u32) -> Option<Strike> {
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let mut draw = self.seed.unit(Stream::Fault, entity, u64::from(attempt));
        for ((kind, fault, sites), rate) in KINDS.into_iter().zip(self.rates) {
            if draw < rate {
                // What is left of the draw is even again, so it chooses the site.
                let place = (draw / rate * sites.len() as f64) as usize;
                return (sites[place.min(sites.len() - 1)] == site)
                    .then(|| Strike::new(fault, kind));
            }
            draw -= rate;
        }
        None
    }
}

impl FaultPoint for RandomFaults {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        self.draw(hit.site, hit.task?, hit.attempt?)
    }
}

#[cfg(test)]
mod tests {
    use guild_core::id::{RunId, TaskIndex};

    use super::*;

    #[test]
    fn every_bad_part_of_a_specification_is_named() {
        let parse = |spec: &str| RandomFaults::parse(spec, Seed(1)).unwrap_err().to_string();

        assert!(parse("crash").contains("`crash` is no fault"));
        assert!(parse("crsh=0.1").contains("unknown fault `crsh`"));
        assert!(parse("kill=0.1").contains("the others need a fault plan"));
        assert!(parse("crash=1.5").contains("`1.5` is no probability for `crash`"));
        assert!(parse("crash=NaN").contains("no probability"));
        assert!(parse("crash=0.1,crash=0.2").contains("named twice"));
        assert!(parse("crash=0.6,hang=0.6").contains("more than 1"));
    }

    #[test]
    fn faults_strike_as_often_as_asked_and_at_one_site_per_attempt() {
        let faults = RandomFaults::parse("crash=0.2,hang=0.1,drop=0.1", Seed(7)).unwrap();
        let sites = [Site::Assign, Site::BeforePerform, Site::AfterPerform, Site::HandIn];
        let mut struck: Vec<(Site, &str)> = Vec::new();

        for index in 0..10_000 {
            let task = TaskId { run: RunId(1), index: TaskIndex(index) };
            let before = struck.len();
            struck.extend(
                sites.iter().filter_map(|site| {
                    faults.draw(*site, task, 1).map(|strike| (*site, strike.kind))
                }),
            );
            assert!(struck.len() <= before + 1, "an attempt is struck once at most");
        }

        let count = |wanted: (Site, &str)| struck.iter().filter(|found| **found == wanted).count();
        for (wanted, expected) in [
            ((Site::BeforePerform, "crash"), 1_000),
            ((Site::AfterPerform, "crash"), 1_000),
            ((Site::BeforePerform, "hang"), 1_000),
            ((Site::Assign, "drop"), 500),
            ((Site::HandIn, "drop"), 500),
        ] {
            let found = count(wanted);
            assert!((found as i64 - expected).abs() < expected / 6, "{found} of {wanted:?}");
        }
    }
}
