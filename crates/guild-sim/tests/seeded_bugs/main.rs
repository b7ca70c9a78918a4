//! Every bug that is put in on purpose is caught, and this says by whom.
//!
//! One workload (`play.rs`) lets clients and tasks interleave on a memory whose disk forgets, while
//! every checker judges what it can see. With each of the bugs in turn the checker that is named for it
//! must object; without any of them nobody may. `cargo test -p guild-sim --test seeded_bugs --
//! --nocapture` prints who caught what. What runs of fault plans make of a memory with a bug is told last.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

#[path = "../../../guild-memory/tests/common/mod.rs"]
mod common;
mod play;
mod watchers;

use std::collections::BTreeMap;
use std::path::Path;

use guild_core::draw::Seed;
use guild_memory::seeded::Bug;
use guild_sim::chaos::{Checks, Experiment};
use guild_sim::plan::Plan;
use play::play;

/// Who judges a play.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Checker {
    /// Cycles of appends to lists and reads of them, as clients saw them (Elle).
    ListAppend,
    /// The order of versions, as the event log tells it.
    Versions,
    /// What a power cut leaves is a state that was sealed, not older than what was acknowledged, with
    /// the writes of exactly those tasks that have completed.
    PowerCut,
    /// Only the newest lease completes a task, once.
    Leases,
    /// Additions add up.
    Sums,
    /// A transaction is refused only if something that it read has changed.
    Refusals,
    /// A version that is pinned can be read as it was.
    Pins,
    /// Who follows the commits arrives at what there is.
    Watch,
    /// Each start of the process has a boot epoch of its own.
    Epochs,
}

/// Objections, the first of each checker.
type Objections = BTreeMap<Checker, String>;

const SEEDS: u64 = 12;

/// Returns the checker that has to catch a bug; others may object, too.
fn catches(bug: Bug) -> Checker {
    match bug {
        Bug::NoRangeValidation
        | Bug::OnlyYieldedKeysTracked
        | Bug::ValidatedAfterApply
        | Bug::SavepointDropsReads => Checker::ListAppend,
        Bug::SnapshotMidGroup => Checker::Versions,
        Bug::CompletionInOtherBatch | Bug::AcknowledgedBeforeSync | Bug::FlushWithoutFdatasync => {
            Checker::PowerCut
        }
        Bug::FenceCheckedBeforeQueueing => Checker::Leases,
        Bug::MergeReplayedTwice => Checker::Sums,
        Bug::GreaterOrEqual => Checker::Refusals,
        Bug::CompactionBelowPin => Checker::Pins,
        Bug::WatchSkipsVersion => Checker::Watch,
        Bug::RestartKeepsEpoch => Checker::Epochs,
    }
}

fn play_all() -> Objections {
    let mut objections = Objections::new();
    for seed in 0..SEEDS {
        for (checker, objection) in play(seed) {
            objections.entry(checker).or_insert(format!("seed {seed}: {objection}"));
        }
    }
    objections
}

#[test]
fn each_bug_is_caught_by_the_checker_that_is_named_for_it() {
    for bug in Bug::ALL {
        Bug::seed(Some(bug));
        let objections = play_all();
        Bug::seed(None);
        println!("{bug:?}:");
        for (checker, objection) in &objections {
            println!("    {checker:?}: {objection}");
        }
        assert!(objections.contains_key(&catches(bug)), "{bug:?} got past {:?}", catches(bug));
    }
}

#[test]
fn without_a_bug_nobody_objects() {
    Bug::seed(None);
    assert_eq!(play_all(), Objections::new());
}

/// Tasks that append to lists of the shared memory, some of which crash afterwards.
const PLAN: &str = r#"
title = "Crashes after effects"
seed = 1

[workload]
shape = "layers"
tasks = 200
agents = 16
duration = "20ms"
effects = true

[[method]]
fault = "crash"
site = "after_perform"
when = { every = 7 }
"#;

/// Power cuts in the midst of the work.
const POWER: &str = r#"
title = "Power cuts"
[workload]
shape = "layers"
tasks = 200
agents = 8
duration = "20ms"
durability = "disk"
effects = true
[[method]]
fault = "lost_writes"
site = "sync"
when = { every = 9 }
"#;

/// Returns what a run of the plan says of an invariant.
fn verdict(text: &str, bug: Option<Bug>, invariant: &str) -> String {
    let plan = Plan::parse(text, Path::new("plan.toml")).unwrap();
    let experiment = Experiment::new(plan, text, None).unwrap();
    Bug::seed(bug);
    let run = experiment.run(Seed(1), None, Checks::NONE, Vec::new());
    Bug::seed(None);
    let verdicts = run.unwrap().result.verdicts;
    verdicts.into_iter().find(|(id, _)| id == invariant).unwrap().1
}

/// Returns what a run with crashes says of the memory.
fn memory_of_a_run(bug: Option<Bug>) -> String {
    verdict(PLAN, bug, "I8")
}

#[test]
fn a_run_whose_completions_are_acknowledged_too_early_loses_them_with_the_power() {
    assert_eq!(verdict(POWER, None, "I9"), "holds");
    let lost = verdict(POWER, Some(Bug::AcknowledgedBeforeSync), "I9");
    assert!(lost.contains("was acknowledged as version"), "{lost}");
}

#[test]
fn a_run_of_a_fault_plan_is_judged_by_its_versions_and_by_what_its_clients_saw_of_lists() {
    assert_eq!(memory_of_a_run(None), "holds");
    let twice = memory_of_a_run(Some(Bug::MergeReplayedTwice));
    assert!(twice.contains("from `lists/") && twice.contains("twice"), "{twice}");
    let dirty = memory_of_a_run(Some(Bug::ValidatedAfterApply));
    assert!(dirty.starts_with("violated"), "{dirty}");
}
