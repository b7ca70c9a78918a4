//! I5: leases and tokens.

use guild_sim::checker::Invariant::I5;
use serde_json::json;

use crate::support::calm_log;

#[test]
fn second_lease_of_a_task_is_seen() {
    let log = calm_log();
    let start = log.of_task("task_assigned", "leaf-2");
    let token = log.event(start)["token"].as_u64().unwrap();
    let log = log.repeated(start, start + 1).with(start + 1, "token", json!(token + 1_000));

    log.violates(I5, start + 1, "is assigned while its lease");
}

#[test]
fn token_that_does_not_grow_is_seen() {
    let log = calm_log();
    let (first, second) =
        (log.of_task("task_assigned", "leaf-1"), log.of_task("task_assigned", "leaf-2"));
    let token = log.event(first.min(second))["token"].clone();
    let log = log.with(first.max(second), "token", token);

    log.violates(I5, first.max(second), "which is not greater than");
}

#[test]
fn result_with_another_token_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "leaf-2");
    let log = log.with(end, "token", json!(7));

    log.violates(I5, end, "task `leaf-2` of run `garden` completes with the token 7 of attempt 1");
}

#[test]
fn result_of_a_task_that_nobody_has_is_seen() {
    let log = calm_log();
    let log = log.clone().without(log.of_task("task_assigned", "leaf-2"));

    log.violates(I5, log.of_task("task_completed", "leaf-2"), "and has no lease");
}

#[test]
fn lease_of_a_life_that_is_over_is_seen() {
    let log = calm_log();
    let crash = log.find("agent_crashed", |_| true);
    let (agent, life) =
        (log.event(crash)["agent"].clone(), log.event(crash)["incarnation"].clone());
    let start =
        log.find("task_assigned", |event| event["agent"] == agent && event["incarnation"] != life);
    let log = log.with(start, "incarnation", life);

    log.violates(I5, start, "which is not up");
}

#[test]
fn failure_of_an_attempt_that_nobody_has_is_seen() {
    let log = calm_log();
    let failed = log.find("task_failed", |_| true);
    let log = log.with(failed, "attempt", json!(9));

    log.violates(I5, failed, "who has no such lease");
}

#[test]
fn task_that_is_ready_while_somebody_has_it_is_seen() {
    let log = calm_log();
    let (ready, start) =
        (log.of_task("task_ready", "leaf-2"), log.of_task("task_assigned", "leaf-2"));
    let log = log.repeated(ready, start + 1);

    log.violates(I5, start + 1, "is ready while its lease lives");
}

#[test]
fn late_answer_with_a_token_that_nobody_got_is_seen() {
    let log = calm_log();
    let end = log.of_task("task_completed", "leaf-2");
    let late = json!({"kind": "stale_result", "run": "garden", "task": "leaf-2", "token": u64::MAX,
        "agent": "worker-0", "incarnation": 1});
    let log = log.with_event(end, late);

    log.violates(I5, end, "which nobody got");
}
