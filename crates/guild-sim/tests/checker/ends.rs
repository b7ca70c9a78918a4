//! I1, I2, I16, I17: ends, cancels and submissions.

use guild_sim::checker::Invariant::{I1, I2, I16, I17};
use guild_sim::checker::{Knowledge, Ruling};
use serde_json::json;

use crate::support::calm_log;

#[test]
fn task_that_never_ends_is_lost() {
    let log = calm_log();
    let log = log.clone().without(log.of_task("task_completed", "leaf-3"));

    log.violates(I1, log.find("run_ended", |_| true), "`leaf-3` is lost");
}

#[test]
fn task_that_ends_twice_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "leaf-3");
    let log = log.repeated(end, end + 1);

    log.violates(I1, end + 1, "task `leaf-3` of run `garden` ends a second time");
    log.violates(I2, end + 1, "task `leaf-3` of run `garden`: something happens after its end");
}

#[test]
fn task_of_an_ended_run_stays_ended() {
    let log = calm_log();
    let ended = log.find("run_ended", |_| true);
    let ready = log.of_task("task_ready", "last");
    let log = log.repeated(ready, ended + 1);

    log.violates(I2, ended + 1, "something happens after the end of its run");
}

#[test]
fn sums_of_a_run_are_checked() {
    let log = calm_log();
    let ended = log.find("run_ended", |_| true);

    log.clone().with(ended, "completed", json!(99)).violates(I1, ended, "99 completed");
    log.clone().with(ended, "outcome", json!("failed")).violates(I1, ended, "said to be failed");
    let submitted = log.find("run_submitted", |_| true);
    log.with(submitted, "tasks", json!(16)).violates(I1, ended, "15 tasks of the 16");
}

#[test]
fn task_that_nobody_added_is_seen() {
    let log = calm_log();
    let ready = log.of_task("task_ready", "root-0");
    let log = log.with(ready, "task", json!("root-9"));

    log.violates(I1, ready, "task `root-9` of run `garden` was never added");
}

#[test]
fn task_of_a_run_that_nobody_submitted_and_task_that_is_added_twice_are_seen() {
    let log = calm_log();
    let submitted = log.find("run_submitted", |_| true);
    let unknown = log.clone().without(submitted);
    unknown.violates(I1, submitted, "of run `garden`: the run was never submitted");

    let added = log.of_task("task_added", "leaf-3");
    let log = log.repeated(added, added + 1);
    log.violates(I1, added + 1, "task `leaf-3` of run `garden` is added a second time");
}

#[test]
fn end_of_a_run_that_is_over_or_never_began_is_seen() {
    let log = calm_log();
    let ended = log.find("run_ended", |_| true);
    let twice = log.repeated(ended, ended + 1);
    twice.violates(I2, ended + 1, "run `garden` ends a second time");
    let cancelled = twice.clone().with(ended + 1, "kind", json!("run_cancelled"));
    cancelled.violates(I2, ended + 1, "run `garden` is cancelled after its end");
    let unknown = twice.with(ended + 1, "run", json!("meadow"));
    unknown.violates(I1, ended + 1, "run `meadow` ends and never began");
}

#[test]
fn run_that_does_not_end_in_the_log_is_lost_only_for_whoever_knows_that_it_is_complete() {
    let mut log = calm_log();
    log.0.truncate(log.find("run_ended", |_| true));

    let verdict = log.judged();
    assert!(verdict.is_clean());
    assert!(
        matches!(verdict.ruling(I1), Ruling::Holds { note: Some(note), .. }
        if note.contains("`garden` has not ended: 0 of 17 tasks are open")),
        "{:?}",
        verdict.ruling(I1)
    );
    let complete = Knowledge { is_complete: true, ..Knowledge::default() };
    assert!(log.judged_by(&complete).ruling(I1).is_violated());
}

#[test]
fn attempt_that_starts_after_a_cancel_is_seen() {
    let log = calm_log();
    let start = log.of_task("task_assigned", "leaf-5");
    let log = log.with_event(start, json!({"kind": "run_cancelled", "run": "garden"}));

    log.violates(
        I16,
        start + 1,
        "task `leaf-5` of run `garden` goes on after its run was cancelled",
    );
}

#[test]
fn second_run_of_one_name_is_seen() {
    let log = calm_log();
    let submitted = log.find("run_submitted", |_| true);
    let log = log.repeated(submitted, submitted + 1);
    log.violates(I17, submitted + 1, "run `garden` is submitted a second time");

    let log = calm_log();
    let end = log.find("run_ended", |_| true);
    let log = log.repeated(submitted, end + 1);
    log.violates(I17, end + 1, "run `garden` is submitted a second time");
}

#[test]
fn run_that_is_joined_and_was_never_submitted_is_seen() {
    let log = calm_log();
    let end = log.find("run_ended", |_| true);
    let log = log.with_event(end, json!({"kind": "run_joined", "run": "meadow"}));

    log.violates(I17, end, "run `meadow` is joined and was never submitted");
}
