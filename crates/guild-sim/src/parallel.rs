//! Runs whole simulations side by side: each on one thread of its own, and none knows of another.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does all jobs, as many at a time as the machine has cores; the results are in the order of the
/// jobs, whichever ended first.
///
/// # Errors
/// The error of the first job in that order that failed; jobs behind it may not have been done.
///
/// # Panics
/// A job panicked.
pub fn on_all_cores<J: Copy + Sync, R: Send, E: Send>(
    jobs: &[J],
    work: impl Fn(J) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    side_by_side(jobs, None, work)
}

/// Does the same, at most so many at a time; none: as many as there are cores.
///
/// # Errors
/// As [`on_all_cores`].
pub fn side_by_side<J: Copy + Sync, R: Send, E: Send>(
    jobs: &[J],
    at_a_time: Option<usize>,
    work: impl Fn(J) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<R, E>>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = at_a_time.unwrap_or_else(cores).max(1).min(jobs.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((place, job)) = {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(place).map(|job| (place, *job))
                } {
                    let result = work(job);
                    if result.is_err() {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    *done[place].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    // After an error the jobs behind it may not have been done.
    done.into_iter()
        .filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}
