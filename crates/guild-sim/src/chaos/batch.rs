//! Plays a plan for many seeds on all cores, and makes the first violation small.
//!
//! What a batch says depends on its seeds alone: the lowest seed that violates something is found,
//! whichever core is faster.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use guild_core::draw::Seed;

use super::{BEFORE, ChaosRun, Checks, Experiment};
use crate::checker::Invariant;
use crate::plan::{Case, Coverage, PlanError, Shrunk, Trial, shrink};

/// Every how many seeds a run is also checked without faults, and repeated.
const CHECKED_EVERY: u64 = 10;

/// Seeds in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// How many cores play at once at most.
    pub threads: usize,
    /// How many smaller cases are tried when something is violated.
    pub trials_max: u32,
}

/// What came of a batch.
#[derive(Debug)]
pub struct BatchEnd {
    /// Runs that were played, up to the first violation.
    pub runs: u64,
    /// Events of these runs.
    pub events: u64,
    /// What they have shown.
    pub coverage: Coverage,
    /// The lowest seed that violates something.
    pub violated: Option<Violated>,
}

/// A run that violates something, and how little of it is needed.
#[derive(Debug)]
pub struct Violated {
    /// The whole run.
    pub run: ChaosRun,
    /// The smallest case that was found to violate the same, and its run; none when the violation
    /// does not come again.
    pub small: Option<(Shrunk, ChaosRun)>,
}

/// Runs that are played already and wait for those with lower seeds.
#[derive(Default)]
struct Done {
    runs: BTreeMap<u64, Result<ChaosRun, PlanError>>,
    next: u64,
    end: u64,
    coverage: Coverage,
    counted: u64,
    events: u64,
    stopped: Option<Result<ChaosRun, PlanError>>,
}

impl Batch {
    /// Plays the batch; `step` is called after each run.
    ///
    /// # Errors
    /// The workload of a seed makes no sense.
    pub fn play(
        &self,
        experiment: &Experiment,
        step: impl Fn() + Sync,
    ) -> Result<BatchEnd, PlanError> {
        let last = self.first.saturating_add(self.seeds);
        let next = AtomicU64::new(self.first);
        let done = Mutex::new(Done { next: self.first, end: last, ..Done::default() });
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= lock(&done).end {
                            break;
                        }
                        let checks = self.checks(seed);
                        let run = experiment.run(Seed(seed), None, checks, Vec::new());
                        lock(&done).add(seed, run);
                        step();
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let violated = match done.stopped {
            None => None,
            Some(run) => Some(self.shrink(experiment, run?)?),
        };
        let Done { coverage, events, counted, .. } = done;
        Ok(BatchEnd { runs: counted, events, coverage, violated })
    }

    /// What is done beyond each run costs as much as the run: it is done for some.
    fn checks(&self, seed: u64) -> Checks {
        match (seed - self.first).is_multiple_of(CHECKED_EVERY) {
            true => Checks::ALL,
            false => Checks::NONE,
        }
    }

    /// Makes a run that violates something small, while it violates the same.
    ///
    /// # Errors
    /// The workload of a smaller case makes no sense.
    pub fn shrink(&self, experiment: &Experiment, run: ChaosRun) -> Result<Violated, PlanError> {
        let violated = |run: &ChaosRun| -> Vec<String> {
            run.result.violated().map(|(id, _)| id.clone()).collect()
        };
        let sought = violated(&run).into_iter().next().unwrap_or_default();
        let verdicts: Vec<_> = run.result.violated().map(|(_, verdict)| verdict).collect();
        let checks = Checks {
            before: verdicts.iter().any(|verdict| verdict.contains(BEFORE)),
            repeat: sought == Invariant::I15.name(),
        };
        let seed = Seed(run.result.seed);
        let mut failed = None;
        let mut best: Option<(Case, ChaosRun)> = None;
        let start = match &run.result.only {
            Some(only) => only.parse().unwrap_or_default(),
            None => experiment.plan().draw(seed).whole(),
        };
        let shrunk = shrink(start, self.trials_max, |case| {
            match experiment.run(seed, Some(case), checks, Vec::new()) {
                Ok(run) if violated(&run).contains(&sought) => {
                    let faults = run.faults.clone();
                    best = Some((case.clone(), run));
                    Trial::Failed { faults }
                }
                Ok(_) => Trial::Passed,
                Err(error) => {
                    failed.get_or_insert(error);
                    Trial::Passed
                }
            }
        });
        match (failed, shrunk, best) {
            (_, Some(shrunk), Some((_, small))) => {
                Ok(Violated { run, small: Some((shrunk, small)) })
            }
            (Some(error), _, _) => Err(error),
            _ => Ok(Violated { run, small: None }),
        }
    }
}

impl Done {
    /// Takes a run and counts those whose turn it is.
    fn add(&mut self, seed: u64, run: Result<ChaosRun, PlanError>) {
        self.runs.insert(seed, run);
        while let Some(run) = self.runs.remove(&self.next) {
            if self.stopped.is_some() {
                return;
            }
            self.next += 1;
            let stops = match &run {
                Ok(run) => {
                    self.coverage.join(&run.coverage);
                    self.counted += 1;
                    self.events += run.counts.events;
                    run.result.violated().next().is_some()
                }
                Err(_) => true,
            };
            if stops {
                self.stopped = Some(run);
            }
        }
        // Seeds above one that is known to violate something need not be played.
        let stops = |run: &Result<ChaosRun, PlanError>| {
            run.as_ref().map_or(true, |run| run.result.violated().next().is_some())
        };
        if self.stopped.is_some() {
            self.end = self.end.min(self.next);
        } else if let Some((seed, _)) = self.runs.iter().find(|(_, run)| stops(run)) {
            self.end = self.end.min(seed + 1);
        }
    }
}

fn lock(done: &Mutex<Done>) -> MutexGuard<'_, Done> {
    done.lock().unwrap_or_else(PoisonError::into_inner)
}
