//! Every bug that is put in on purpose is caught, and this says by whom.
//!
//! One workload (`play.rs`) lets clients and tasks interleave on a memory whose disk forgets, while
//! every checker judges what it can see. With each of the bugs in turn the checker that is named for it
//! must object; without any of them nobody may. `cargo test -p guild-sim --test seeded_bugs --
//! --nocapture` prints who caught what.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

#[path = "../../../guild-memory/tests/common/mod.rs"]
mod common;
mod play;
mod watchers;

use std::collections::BTreeMap;

use guild_memory::seeded::Bug;
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
