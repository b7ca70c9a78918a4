//! Says how long a task takes: always the same, or drawn from a distribution.
//!
//! A draw depends on the seed and the task alone, so that one more draw shifts no other. The
//! generator is ChaCha8, seeded by the keyed draw; the distributions are those of `rand_distr`.

use std::path::Path;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Exp, LogNormal, Normal, Pareto, Uniform};

/// The longest time that a simulated task can take: a hundred years. A longer draw is cut.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long tasks of one kind take.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Durations {
    /// Always this long.
    Fixed(Duration),
    /// Anything between the two, both included.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A normal distribution; a negative draw counts as 0.
    Normal {
        /// The mean.
        mean: Duration,
        /// The standard deviation.
        sd: Duration,
    },
    /// A log-normal distribution: half of the draws are below the median, and the logarithm has
    /// the standard deviation sigma.
    LogNormal {
        /// The median.
        median: Duration,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// An exponential distribution.
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// A Pareto distribution: never below the minimum, with a tail that is the heavier the smaller
    /// the shape; up to 1 the mean is infinite.
    Pareto {
        /// The shortest.
        min: Duration,
        /// The exponent of the tail.
        shape: f64,
    },
    /// One of these, each as likely as the others.
    Empirical(Vec<Duration>),
}

/// Why durations cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// A parameter makes no sense.
    #[error("`{key}` of `{distribution}` is {value}: {remedy}")]
    Parameter {
        /// The distribution.
        distribution: &'static str,
        /// Its parameter.
        key: &'static str,
        /// What was given.
        value: String,
        /// What to write.
        remedy: &'static str,
    },
    /// A file of samples cannot be read.
    #[error("cannot read {path}: {message}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A file of samples lacks the column.
    #[error("{path} has no column `{column}`; it has {known}")]
    Column {
        /// The file.
        path: String,
        /// What was asked for.
        column: String,
        /// Its columns.
        known: String,
    },
    /// A cell is no duration.
    #[error("{path}, line {line}: `{cell}` in the column `{column}` is no number from 0 on")]
    Cell {
        /// The file.
        path: String,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// What stands there.
        cell: String,
    },
    /// There is nothing to draw from.
    #[error("{path} has no row below its head: give it one sample at least")]
    NoSamples {
        /// The file.
        path: String,
    },
}

impl Durations {
    /// Checks the parameters.
    ///
    /// # Errors
    /// One of them makes no sense.
    pub fn check(&self) -> Result<(), DurationError> {
        let wrong = |distribution, key, value: String, remedy| {
            Err(DurationError::Parameter { distribution, key, value, remedy })
        };
        match self {
            Self::Uniform { min, max } if min > max => {
                wrong("uniform", "min", format!("{min:?}"), "it must not be above `max`")
            }
            Self::LogNormal { sigma, .. } if !(sigma.is_finite() && *sigma >= 0.0) => {
                wrong("log-normal", "sigma", sigma.to_string(), "write a number from 0 on")
            }
            Self::LogNormal { median, .. } if median.is_zero() => {
                wrong("log-normal", "median", "0".into(), "it must be above 0")
            }
            Self::Exponential { mean } if mean.is_zero() => {
                wrong("exponential", "mean", "0".into(), "it must be above 0")
            }
            Self::Pareto { shape, .. } if !(shape.is_finite() && *shape > 0.0) => {
                wrong("pareto", "shape", shape.to_string(), "write a number above 0")
            }
            Self::Pareto { min, .. } if min.is_zero() => {
                wrong("pareto", "min", "0".into(), "it must be above 0")
            }
            Self::Empirical(samples) if samples.is_empty() => {
                wrong("empirical", "samples", "empty".into(), "give it one sample at least")
            }
            _ => Ok(()),
        }
    }

    /// Draws the duration of the n-th task; `entity` tells apart what draws the same n.
    pub fn draw(&self, seed: Seed, entity: u64, n: u64) -> Duration {
        if let Self::Fixed(duration) = self {
            return *duration;
        }
        let mut generator = ChaCha8Rng::seed_from_u64(seed.bits(Stream::Duration, entity, n));
        let seconds = match self {
            Self::Fixed(duration) => duration.as_secs_f64(),
            Self::Uniform { min, max } => {
                Uniform::new_inclusive(min.as_secs_f64(), max.as_secs_f64())
                    .map_or(min.as_secs_f64(), |uniform| uniform.sample(&mut generator))
            }
            Self::Normal { mean, sd } => Normal::new(mean.as_secs_f64(), sd.as_secs_f64())
                .map_or(mean.as_secs_f64(), |normal| normal.sample(&mut generator)),
            Self::LogNormal { median, sigma } => LogNormal::new(median.as_secs_f64().ln(), *sigma)
                .map_or(median.as_secs_f64(), |normal| normal.sample(&mut generator)),
            Self::Exponential { mean } => Exp::new(1.0 / mean.as_secs_f64())
                .map_or(mean.as_secs_f64(), |exponential| exponential.sample(&mut generator)),
            Self::Pareto { min, shape } => Pareto::new(min.as_secs_f64(), *shape)
                .map_or(min.as_secs_f64(), |pareto| pareto.sample(&mut generator)),
            Self::Empirical(samples) => {
                let place = seed.bits(Stream::Duration, entity, n) % samples.len().max(1) as u64;
                return samples.get(place as usize).copied().unwrap_or_default();
            }
        };
        from_seconds(seconds)
    }

    /// Returns the mean, where it is finite; what a planner expects before the draw.
    pub fn mean(&self) -> Duration {
        match self {
            Self::Fixed(duration) => *duration,
            Self::Uniform { min, max } => *min + (*max - *min) / 2,
            Self::Normal { mean, .. } | Self::Exponential { mean } => *mean,
            Self::LogNormal { median, sigma } => {
                from_seconds(median.as_secs_f64() * (sigma * sigma / 2.0).exp())
            }
            Self::Pareto { min, shape } if *shape > 1.0 => {
                from_seconds(min.as_secs_f64() * shape / (shape - 1.0))
            }
            Self::Pareto { .. } => DURATION_MAX,
            Self::Empirical(samples) => {
                let sum: f64 = samples.iter().map(Duration::as_secs_f64).sum();
                from_seconds(sum / samples.len().max(1) as f64)
            }
        }
    }

    /// Reads samples from a column of a CSV file with a head; each cell is a number of `unit`.
    ///
    /// # Errors
    /// The file cannot be read, lacks the column, or holds something else than numbers there.
    pub fn from_csv(path: &Path, column: &str, unit: Duration) -> Result<Self, DurationError> {
        let place = path.display().to_string();
        let file = |error: csv::Error| DurationError::File {
            path: place.clone(),
            message: error.to_string(),
        };
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(file)?;
        let head = reader.headers().map_err(file)?.clone();
        let Some(at) = head.iter().position(|name| name == column) else {
            let known: Vec<String> = head.iter().map(|name| format!("`{name}`")).collect();
            let (path, column) = (place, column.to_owned());
            return Err(DurationError::Column { path, column, known: known.join(", ") });
        };
        let mut samples = Vec::new();
        for row in reader.records() {
            let row = row.map_err(file)?;
            let cell = row.get(at).unwrap_or_default();
            let number = cell.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
            let Some(number) = number else {
                let line = row.position().map_or(0, csv::Position::line);
                let (path, column, cell) = (place, column.to_owned(), cell.to_owned());
                return Err(DurationError::Cell { path, line, column, cell });
            };
            samples.push(from_seconds(number * unit.as_secs_f64()));
        }
        if samples.is_empty() {
            return Err(DurationError::NoSamples { path: place });
        }
        Ok(Self::Empirical(samples))
    }
}

/// Returns a duration to the microsecond, cut to 0 and [`DURATION_MAX`].
pub(crate) fn from_seconds(seconds: f64) -> Duration {
    let seconds = seconds.clamp(0.0, DURATION_MAX.as_secs_f64());
    if seconds.is_nan() {
        return Duration::ZERO;
    }
    Duration::from_micros((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(durations: &Durations) -> Vec<f64> {
        let mut drawn: Vec<f64> =
            (0..20_000).map(|n| durations.draw(Seed(5), 0, n).as_secs_f64()).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn draws_follow_the_theory() {
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 0.05 * expected, "{found} for {expected}");
        };
        let mean = |drawn: &[f64]| drawn.iter().sum::<f64>() / drawn.len() as f64;
        let median = |drawn: &[f64]| drawn[drawn.len() / 2];

        let uniform = sample(&Durations::Uniform { min: SECOND, max: 3 * SECOND });
        near(mean(&uniform), 2.0);
        near(uniform[uniform.len() / 10], 1.2);
        let normal = sample(&Durations::Normal { mean: 10 * SECOND, sd: SECOND });
        near(mean(&normal), 10.0);
        near(normal[(normal.len() as f64 * 0.8413) as usize], 11.0);
        let logarithmic = sample(&Durations::LogNormal { median: 2 * SECOND, sigma: 0.5 });
        near(median(&logarithmic), 2.0);
        near(logarithmic[(logarithmic.len() as f64 * 0.8413) as usize], 2.0 * 0.5f64.exp());
        let exponential = sample(&Durations::Exponential { mean: 4 * SECOND });
        near(mean(&exponential), 4.0);
        near(median(&exponential), 4.0 * std::f64::consts::LN_2);
        let pareto = sample(&Durations::Pareto { min: SECOND, shape: 3.0 });
        near(mean(&pareto), 1.5);
        near(median(&pareto), 2f64.powf(1.0 / 3.0));
        assert!(pareto[0] >= 1.0);
    }

    #[test]
    fn normal_draw_is_never_negative_and_a_wild_tail_is_cut() {
        let normal = sample(&Durations::Normal { mean: SECOND, sd: 10 * SECOND });
        assert!(normal[0] >= 0.0);
        let wild = sample(&Durations::Pareto { min: SECOND, shape: 0.01 });
        assert!(wild[wild.len() - 1] <= DURATION_MAX.as_secs_f64());
    }

    #[test]
    fn draw_depends_on_its_key_alone() {
        let durations = Durations::Exponential { mean: SECOND };
        assert_eq!(durations.draw(Seed(1), 2, 3), durations.draw(Seed(1), 2, 3));
        assert_ne!(durations.draw(Seed(1), 2, 3), durations.draw(Seed(1), 2, 4));
        assert_ne!(durations.draw(Seed(1), 2, 3), durations.draw(Seed(2), 2, 3));
    }

    #[test]
    fn parameters_that_make_no_sense_are_named() {
        let wrong = |durations: Durations| durations.check().unwrap_err().to_string();

        assert!(wrong(Durations::Uniform { min: SECOND, max: Duration::ZERO }).contains("`min`"));
        assert!(wrong(Durations::Pareto { min: SECOND, shape: -1.0 }).contains("`shape`"));
        assert!(
            wrong(Durations::LogNormal { median: SECOND, sigma: f64::NAN }).contains("`sigma`")
        );
        assert!(wrong(Durations::Exponential { mean: Duration::ZERO }).contains("`mean`"));
    }

    #[test]
    fn samples_come_from_a_column_and_a_bad_cell_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.csv");
        let read = |text: &str, column| {
            std::fs::write(&path, text).unwrap();
            Durations::from_csv(&path, column, Duration::from_millis(1))
        };

        let both = vec![Duration::from_millis(3), Duration::from_micros(500)];
        assert_eq!(read("a, b\n1, 3\n2, 0.5\n", "b"), Ok(Durations::Empirical(both)));
        assert!(read("a,b\n1,3\n", "c").unwrap_err().to_string().contains("it has `a`, `b`"));
        assert!(read("a,b\n1,3\n2,x\n", "b").unwrap_err().to_string().contains("line 3: `x`"));
        assert!(read("a,b\n1,-3\n", "b").unwrap_err().to_string().contains("`-3`"));
        assert!(read("a,b\n", "b").unwrap_err().to_string().contains("no row"));
        std::fs::remove_file(&path).unwrap();
        assert!(Durations::from_csv(&path, "b", SECOND).is_err());
    }
}
