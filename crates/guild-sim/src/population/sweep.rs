//! Runs a model for many parameters and seeds, on all cores.

use std::ops::Range;

use super::Series;
use super::series::text;
use crate::parallel::on_all_cores;

/// One run of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial<P, R> {
    /// The parameters.
    pub parameters: P,
    /// The seed.
    pub seed: u64,
    /// What came of it.
    pub result: R,
}

/// Runs `trial` for each of the parameters with each of the seeds, as many at a time as the machine
/// has cores. The trials are returned in the order of parameters and seeds, whichever ended first,
/// and each depends on its parameters and its seed alone.
///
/// # Errors
/// A trial failed: the error of the first that did in that order; trials after it may not have run.
///
/// # Panics
/// A trial panicked.
pub fn sweep<P, R, E>(
    parameters: &[P],
    seeds: Range<u64>,
    trial: impl Fn(&P, u64) -> Result<R, E> + Sync,
) -> Result<Vec<Trial<P, R>>, E>
where
    P: Clone + Sync,
    R: Send,
    E: Send,
{
    let of_point = |point: usize| seeds.clone().map(move |seed| (point, seed));
    let jobs: Vec<(usize, u64)> = (0..parameters.len()).flat_map(of_point).collect();
    let results = on_all_cores(&jobs, |(point, seed)| trial(&parameters[point], seed))?;
    let trial = |((point, seed), result): (&(usize, u64), R)| Trial {
        parameters: parameters[*point].clone(),
        seed: *seed,
        result,
    };
    Ok(jobs.iter().zip(results).map(trial).collect())
}

/// Returns the series of all trials as one CSV: the columns of the parameters, `seed`, and those of
/// the series.
pub fn sweep_csv<P, const N: usize>(
    trials: &[Trial<P, Series>],
    columns: [&str; N],
    cells: impl Fn(&P) -> [String; N],
) -> String {
    text(|bytes| {
        let mut csv = csv::Writer::from_writer(bytes);
        let Some(first) = trials.first() else {
            return csv.flush();
        };
        let series = first.result.columns().iter().map(String::as_str);
        csv.write_record(columns.into_iter().chain(["seed", "tick", "time_s"]).chain(series))?;
        for trial in trials {
            for row in trial.result.rows() {
                let own = cells(&trial.parameters).into_iter().chain([trial.seed.to_string()]);
                csv.write_record(own.chain(row.cells()))?;
            }
        }
        csv.flush()
    })
}
