//! Judges a run: the checkers read its log, and are told what only the harness knows.

use std::collections::BTreeMap;
use std::time::Duration;

use super::drive::Stop;
use super::notes::Told;
use crate::checker::{Invariant, Knowledge, Ruling, Verdict};
use crate::plan::PlanResult;

/// Names what a plan demands beyond the invariants.
pub const STEADY_STATE: &str = "steady_state";

/// What the harness knows when a run is over.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) ended: &'a Result<(), Stop>,
    pub(super) told: &'a Told,
    /// Share of the tasks that must have completed.
    pub(super) completed_min_percent: u32,
    /// The first event that was told and is no longer as it was.
    pub(super) rewritten: Option<u64>,
    /// How long the run may take after the quiet phase has begun.
    pub(super) bound: Duration,
    /// The counter of effects in the memory, where tasks have effects and the guild has ended well.
    pub(super) counter: Option<i64>,
    pub(super) knowledge: Knowledge,
}

/// The verdict of each invariant and of the steady state, by its name.
pub(super) type Verdicts = BTreeMap<String, String>;

/// Says of everything whether it holds.
pub(super) fn judge(verdict: &Verdict, known: &Known<'_>) -> Verdicts {
    let mut verdicts: Verdicts =
        verdict.rulings.iter().map(|(id, ruling)| (id.name().to_owned(), told(ruling))).collect();
    let mut violate = |id: &str, why: String| {
        let verdict = verdicts.entry(id.to_owned()).or_insert_with(holds);
        if !is_violated(verdict) {
            *verdict = format!("violated: {why}");
        }
    };
    if let Some(broken) = &verdict.broken {
        violate(Invariant::I1.name(), format!("the event log is broken: {broken}"));
    }
    match known.ended {
        Ok(()) => {}
        Err(Stop::Late) => {
            let bound = known.bound;
            let why = format!("the run has not ended {bound:?} after the quiet phase began");
            violate(Invariant::I12.name(), why);
        }
        Err(Stop::Failed(why)) => {
            violate(Invariant::I12.name(), format!("the guild stopped working: {why}"));
        }
        Err(Stop::Lost(why)) => violate(Invariant::I9.name(), why.clone()),
        Err(Stop::Refused(why)) => {
            violate(Invariant::I17.name(), format!("the run was refused: {why}"));
        }
    }
    if let Some(seq) = known.rewritten {
        let why = format!("event {seq} was told and is not as it was after a recovery");
        violate(Invariant::I9.name(), why);
    }
    let Told { completed, tasks, .. } = *known.told;
    let outside = known.knowledge.ledger.as_ref().map(|ledger| ledger.len() as u64);
    if let (Some(counter), Some(outside)) = (known.counter, outside) {
        if u64::try_from(counter) != Ok(completed) {
            let why = format!("{completed} tasks completed and the memory counts {counter}");
            violate(Invariant::I3.name(), why);
        }
        if outside < completed {
            let why = format!("{completed} tasks completed and only {outside} had their effect");
            violate(Invariant::I3.name(), why);
        }
    }
    let least = tasks * u64::from(known.completed_min_percent);
    if completed * 100 < least {
        let percent = known.completed_min_percent;
        let why = format!("{completed} of {tasks} tasks completed, fewer than {percent} %");
        violate(STEADY_STATE, why);
    } else {
        verdicts.insert(STEADY_STATE.to_owned(), holds());
    }
    verdicts
}

fn told(ruling: &Ruling) -> String {
    match ruling {
        Ruling::Holds { .. } => holds(),
        Ruling::NotJudged { .. } | Ruling::Violated { .. } => ruling.to_string(),
    }
}

fn holds() -> String {
    PlanResult::HOLDS.to_owned()
}

/// Tells whether the text of a verdict says that something is violated.
pub(super) fn is_violated(verdict: &str) -> bool {
    verdict.starts_with("violated")
}
