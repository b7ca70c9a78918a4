//! I3, I4, I6, I8: effects, order, attempts and the memory.

use std::collections::BTreeMap;

use guild_sim::checker::Invariant::{I3, I4, I6, I8};
use guild_sim::checker::{Knowledge, Ruling};
use serde_json::json;

use crate::support::{Log, assert_clean, calm_log};

#[test]
fn effect_without_its_completion_is_seen() {
    let log = calm_log();
    let wrote = log.of_task("memory_committed", "leaf-2");
    let log = log.without(wrote + 1);

    log.violates(I3, wrote + 1, "task `leaf-2` of run `garden` wrote version");
}

#[test]
fn second_effect_of_a_task_is_seen() {
    let log = calm_log();
    let wrote = log.of_task("memory_committed", "leaf-2");
    let log = log.repeated(wrote, wrote + 2);

    log.violates(I3, wrote + 2, "task `leaf-2` of run `garden` writes again after its end");
}

#[test]
fn second_effect_outside_is_seen_by_whoever_kept_a_ledger() {
    let ledger = BTreeMap::from([("garden/leaf-1".to_owned(), 1), ("garden/leaf-2".to_owned(), 2)]);
    let knowledge = Knowledge { ledger: Some(ledger), ..Knowledge::default() };

    let verdict = calm_log().judged_by(&knowledge);

    let message = verdict.ruling(I3).to_string();
    assert!(message.contains("`garden/leaf-2` outside of Guild happened 2 times"), "{message}");
}

#[test]
fn task_that_starts_before_its_parents_is_seen() {
    let log = calm_log();
    let parents = ["root-0", "root-1"].map(|root| log.of_task("task_completed", root));
    let first = parents.into_iter().min().unwrap();
    let ready = log.of_task("task_ready", "leaf-0");
    let log = log.moved(ready, first);

    log.violates(I4, first, "is ready while 2 of the tasks that it waits for are not done");
}

#[test]
fn task_that_starts_before_what_its_parent_planted_is_seen() {
    let log = calm_log();
    let planted = log.of_task("task_completed", "planter/left");
    let ready = log.of_task("task_ready", "last");
    let last_leaf = (0..8).map(|n| log.of_task("task_completed", &format!("leaf-{n}"))).max();
    assert!(last_leaf.unwrap() < planted, "what was planted comes last");
    let log = log.moved(ready, planted);

    log.violates(I4, planted, "is ready while 1 of the tasks that it waits for are not done");
}

#[test]
fn task_that_starts_after_a_parent_was_skipped_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "flaky");
    let skipped =
        json!({"kind": "task_ended", "run": "garden", "task": "flaky", "state": "skipped"});
    let log = log.without(end).with_event(end, skipped);

    log.violates(I4, log.of_task("task_ready", "planter"), "did not complete");
}

#[test]
fn task_that_starts_without_being_ready_is_seen() {
    let log = calm_log();
    let log = log.clone().without(log.of_task("task_ready", "leaf-2"));

    log.violates(I4, log.of_task("task_assigned", "leaf-2"), "starts and is not ready");
}

#[test]
fn task_that_reads_an_old_memory_is_seen() {
    let log = calm_log();
    let wrote = log.of_task("memory_committed", "leaf-2");
    let log = log.with(wrote, "snapshot", json!(0));

    log.violates(I4, wrote, "reads version 0, which lacks what its parents committed");
}

#[test]
fn task_that_commits_before_what_it_waits_for_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "leaf-2");
    let log = log.with(end, "version", json!(1));

    log.violates(I4, end, "task `leaf-2` of run `garden` commits version 1, before version");
}

#[test]
fn task_that_is_tried_again_after_it_was_given_up_is_seen() {
    let log = calm_log();
    let failed = log.of_task("task_failed", "flaky");
    let again = log.find("task_ready", |event| event["task"] == "flaky" && event["at_us"] != 0);
    let given_up =
        log.clone().with(failed, "cause", json!("error")).with(failed, "retry_at_us", json!(null));
    given_up.violates(I6, again, "is tried again after it was given up");

    let poisoned = json!({"kind": "task_poisoned", "run": "garden", "task": "flaky", "kills": 2});
    let log = log.with_event(failed, poisoned);
    log.violates(I6, failed + 1, "task `flaky` of run `garden` is poison and tried again");
}

#[test]
fn task_that_is_tried_too_often_is_seen() {
    let log = calm_log();
    let added = log.of_task("task_added", "flaky");
    let mut retry = log.event(added)["retry"].clone();
    retry["attempts_max"] = json!(2);
    let log = log.with(added, "retry", retry);
    let second = log.find("task_failed", |event| event["attempt"] == 2);

    log.violates(I6, second, "is tried again after 2 of 2 failed attempts");
}

#[test]
fn task_that_is_given_up_too_early_is_seen() {
    let log = calm_log();
    let failed = log.of_task("task_failed", "flaky");
    let log = log.with(failed, "retry_at_us", json!(null));

    log.violates(I6, failed, "is given up after 1 of 20 failed attempts");
}

#[test]
fn task_that_is_tried_again_before_its_backoff_is_over_is_seen() {
    let log = calm_log();
    let failed = log.of_task("task_failed", "flaky");
    let at = log.event(failed)["retry_at_us"].as_u64().unwrap();
    let again = log.find("task_ready", |event| event["task"] == "flaky" && event["at_us"] != 0);

    let late = log.clone().with(failed, "retry_at_us", json!(at + 1));
    late.violates(I6, again, "1 us before its backoff is over");
    let long = log.clone().with(failed, "retry_at_us", json!(at + 60_000_000));
    long.violates(I6, failed, "and its policy says 50ms to 100ms");
    let now = log.event(failed)["at_us"].clone();
    log.with(failed, "retry_at_us", now).violates(I6, failed, "is tried again after 0ns");
}

#[test]
fn attempt_that_is_left_out_is_seen() {
    let log = calm_log();
    let start = log.of_task("task_assigned", "leaf-2");
    let log = log.with(start, "attempt", json!(2));

    log.violates(I6, start, "starts attempt 2, not 1");
}

#[test]
fn task_that_is_given_up_without_a_last_attempt_is_seen() {
    let log = calm_log();
    let ready = log.of_task("task_ready", "leaf-2");
    let ended = json!({"kind": "task_ended", "run": "garden", "task": "leaf-2", "state": "failed"});
    let log = log.with_event(ready, ended);

    log.violates(I6, ready, "its last attempt did not say so");
}

/// A place where a commit read something, and that commit.
fn reading(log: &Log) -> usize {
    log.find("memory_committed", |event| !event["reads"].as_array().unwrap().is_empty())
}

#[test]
fn read_of_another_version_is_seen() {
    let log = calm_log();
    let place = reading(&log);
    let mut reads = log.event(place)["reads"].clone();
    reads[0][1] = json!(reads[0][1].as_u64().unwrap_or_default() + 1);
    let log = log.with(place, "reads", reads);

    log.violates(I8, place, "and at its commit");
}

#[test]
fn commit_that_reads_its_own_future_is_seen() {
    let log = calm_log();
    let place = reading(&log);
    let version = log.event(place)["version"].clone();
    let log = log.with(place, "snapshot", version.clone());

    log.violates(I8, place, &format!("commits version {version} and has read {version}"));
}

#[test]
fn change_that_does_not_say_whether_it_wrote_or_removed_is_seen() {
    let log = calm_log();
    let wrote = log.of_task("memory_committed", "root-2");
    let log = log.with(wrote, "keys", json!(["count"]));

    log.violates(I8, wrote, "changes `count`, without a sign");
}

#[test]
fn read_that_missed_a_key_is_seen() {
    let log = calm_log();
    let place = reading(&log);
    let mut reads = log.event(place)["reads"].clone();
    reads[0][1] = json!(null);
    let log = log.with(place, "reads", reads);

    log.violates(I8, place, "absent, and at its commit");
}

#[test]
fn phantom_in_a_range_is_seen() {
    let log = calm_log();
    let place = log.find("memory_committed", |event| event["ranges"][0][2].as_u64() > Some(2));
    let mut ranges = log.event(place)["ranges"].clone();
    ranges[0][2] = json!(ranges[0][2].as_u64().unwrap() - 1);
    let log = log.with(place, "ranges", ranges);

    log.violates(I8, place, "keys and there were");
}

#[test]
fn phantom_in_a_range_that_is_no_prefix_is_seen() {
    let log = calm_log();
    let place = log.find("memory_committed", |event| event["ranges"][0][2].as_u64() > Some(2));
    let [prefix, last, rows] = [0, 1, 2].map(|at| log.event(place)["ranges"][0][at].clone());
    // All that begins with the prefix, and nothing else, lies between these two.
    let to = format!("{}\u{10ffff}", prefix.as_str().unwrap());
    let log = log.with(place, "ranges", json!([]));
    let log = log.with(place, "spans", json!([[prefix, to, last, rows]]));
    assert_clean(&log.judged(), "a range that is no prefix");

    let missed = rows.as_u64().unwrap() - 1;
    let log = log.with(place, "spans", json!([[prefix, to, last, missed]]));
    log.violates(I8, place, "keys and there were");
}

#[test]
fn range_that_saw_too_little_of_the_past_is_seen() {
    let log = calm_log();
    let place = log.find("memory_committed", |event| event["ranges"][0][2].as_u64() > Some(2));
    let log = log.with(place, "snapshot", json!(1));

    log.violates(I8, place, "is newer than the 1 that it read");
}

#[test]
fn write_that_was_not_told_is_seen_by_the_next_reader() {
    let log = calm_log();
    let wrote = log.of_task("memory_committed", "root-2");
    let log = log.with(wrote, "keys", json!(["+count"]));

    assert!(log.judged().ruling(I8).is_violated());
}

#[test]
fn gap_in_the_order_of_commits_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "flaky");
    let version = log.event(end)["version"].as_u64().unwrap();
    let log = log.with(end, "version", json!(version + 5));

    log.violates(I8, end, "the order of commits has a gap");
}

#[test]
fn log_without_histories_is_judged_by_its_order_only() {
    let mut log = calm_log();
    for line in &mut log.0 {
        let mut event: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
        event.remove("snapshot");
        *line = json!(event).to_string();
    }

    assert!(matches!(log.judged().ruling(I8), Ruling::Holds { note: Some(note), .. }
        if note.contains("does not tell what they read")));
}
