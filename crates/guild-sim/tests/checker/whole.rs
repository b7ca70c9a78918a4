//! I7, I9 to I15: what concerns the guild as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guild_memory::store::Crash;
use guild_sim::checker::Invariant::{I7, I9, I10, I11, I12, I13, I14, I15};
use guild_sim::checker::{Invariant, Knowledge, Ruling};
use serde_json::json;

use crate::support::{Log, calm_log, garden, on_disk, orchard, stormy, world};

fn message(log: &Log, knowledge: &Knowledge, invariant: Invariant) -> String {
    log.judged_by(knowledge).ruling(invariant).to_string()
}

#[test]
fn quota_that_is_exceeded_is_seen() {
    let log = calm_log();
    let change = log.find("quota_changed", |event| event["quota"] == "api" && event["in_use"] == 1);

    log.clone().with(change, "in_use", json!(2)).violates(
        I7,
        change,
        "2 of quota `api` are in use, of 1",
    );
    let raised = log.clone().with(change, "limit", json!(5));
    raised.violates(I7, change, "changes from 1 to 5 by itself");
    let start = log.of_task("task_assigned", "root-1").max(log.of_task("task_assigned", "root-0"));
    let first = log.of_task("task_assigned", "root-1").min(log.of_task("task_assigned", "root-0"));
    let log = log.moved(start, first + 1);
    log.violates(I7, first + 1, "with it 2 permits of quota `api` are held, of 1");
}

#[test]
fn permits_that_nobody_counts_are_seen() {
    let log = calm_log();
    let change = log.find("quota_changed", |event| event["quota"] == "api" && event["in_use"] == 1);
    let log = log.without(change);
    let start =
        log.find("task_assigned", |event| event["task"].as_str().unwrap().starts_with("root"));

    log.violates(I7, start, "0 permits of quota `api` are said to be in use, and 1 are");
}

#[test]
fn quota_that_was_never_declared_is_seen() {
    let log = calm_log();
    let change = log.find("quota_changed", |event| event["quota"] == "api" && event["in_use"] == 1);
    let log = log.with(change, "quota", json!("gate"));

    log.violates(I7, change, "quota `gate` changes and was never declared");
}

#[test]
fn rate_that_is_exceeded_is_seen() {
    let log = calm_log();
    let mut quotas = log.event(0)["quotas"].clone();
    quotas["tokens"]["per_us"] = json!(1_000_000);
    let log = log.with(0, "quotas", quotas);

    let ruling = log.judged().ruling(I7).to_string();
    assert!(
        ruling.contains("of quota `tokens`, faster than 1 in 1000000 us with a burst of 2"),
        "{ruling}"
    );
}

/// A log with a restart of the process in it.
fn recovered_log() -> Log {
    let mut world = on_disk(3).start().unwrap();
    let run = world.submit(garden(&world, "garden")).unwrap();
    world.run_until_event(60).unwrap();
    world.crash(Crash::PowerCut { batches_kept: 0 }).unwrap();
    world.run_until_ended(&run).unwrap();
    Log(world.log())
}

#[test]
fn events_that_are_gone_after_a_restart_are_seen() {
    let mut log = recovered_log();
    let restart = log.find("guild_started", |event| event["epoch"] == 2);
    let seq = log.event(restart)["seq"].as_u64().unwrap();
    log = log.with(restart, "seq", json!(seq - 3));

    let verdict = log.judged();
    let ruling = verdict.ruling(I9).to_string();
    assert!(ruling.contains("3 events were acknowledged at `disk` and are gone"), "{ruling}");
}

#[test]
fn events_that_were_never_durable_may_be_gone() {
    let mut log = recovered_log();
    let restart = log.find("guild_started", |event| event["epoch"] == 2);
    let seq = log.event(restart)["seq"].as_u64().unwrap();
    log = log.with(restart, "seq", json!(seq - 3)).with(0, "durability", json!("process"));

    let verdict = log.judged();
    assert!(verdict.is_clean());
    assert!(
        verdict.ruling(I9).to_string().contains("the process lost events"),
        "{}",
        verdict.ruling(I9)
    );
}

#[test]
fn version_that_is_committed_again_after_a_restart_is_seen() {
    let log = recovered_log();
    let restart = log.find("guild_started", |event| event["epoch"] == 2);
    let commit = restart + Log(log.0[restart..].to_vec()).find("task_completed", |_| true);
    let log = log.with(commit, "version", json!(1));
    // What the commit wrote has the version too, and comes before.
    let place =
        if log.event(commit - 1)["kind"] == "memory_committed" { commit - 1 } else { commit };
    let log = if place < commit { log.with(place, "version", json!(1)) } else { log };

    log.violates(I9, place, "after a restart version 1 is committed again");
}

#[test]
fn epoch_that_does_not_grow_and_version_that_was_promised_are_seen() {
    let log = recovered_log();
    let restart = log.find("guild_started", |event| event["epoch"] == 2);
    log.clone().with(restart, "epoch", json!(1)).violates(I9, restart, "in epoch 1 after epoch 1");

    let promised = Knowledge { acknowledged_version: Some(1_000), ..Knowledge::default() };
    assert!(message(&log, &promised, I9).contains("version 1000 was acknowledged"));
}

#[test]
fn later_start_without_a_first_one_is_seen() {
    let log = calm_log().with(0, "epoch", json!(2));

    log.violates(I9, 0, "the process starts in epoch 2, and the log knows no start before");
}

fn stormy_log() -> Log {
    let mut world = stormy(7).start().unwrap();
    world.submit(orchard(&world, "garden")).unwrap();
    world.run_for(Duration::from_millis(200));
    world.guild().record_phase("quiet");
    world.run_until_quiet().unwrap();
    Log(world.log())
}

#[test]
fn fault_without_an_incident_is_seen() {
    let log = stormy_log();
    let fault = log.find("fault_injected", |event| event["type"] == "crash");
    let (number, agent) = (log.event(fault)["fault"].clone(), log.event(fault)["agent"].clone());
    let incident = log.find("incident_opened", |event| event["fault"] == number);
    let unmarked = log.clone().with(incident, "fault", json!(null));
    let life =
        Log(log.0[incident..].to_vec()).find("agent_restarted", |event| event["agent"] == agent);

    unmarked.violates(I10, incident + life, "and no incident names it");
    let log = log.without(incident);
    log.violates(I10, incident + life - 1, "crashed and has no incident");
}

#[test]
fn incident_without_a_cause_is_seen() {
    let log = stormy_log();
    let incident = log.find("incident_opened", |event| event["type"] == "agent_crashed");
    let twice = log.clone().repeated(incident, incident + 1);
    twice.violates(I10, incident + 1, "crashed, and it did not");

    let named = log.clone().with(incident, "fault", json!(1_000));
    named.violates(I10, incident, "names fault 1000, which was never injected");
    let given_up = log.with(incident, "type", json!("task_failed"));
    given_up.violates(I10, incident, "whose last attempt did not fail");
}

#[test]
fn disturbance_of_an_agent_that_no_fault_selects_is_seen() {
    let log = stormy_log();
    let crash = log.find("agent_crashed", |_| true);
    let agent = log.event(crash)["agent"].as_str().unwrap().to_owned();
    let all = || (0..4).map(|n| format!("worker-{n}")).chain((0..2).map(|n| format!("flaky-{n}")));
    let all: BTreeSet<String> = all().chain(["planter-0".to_owned()]).collect();
    let mut others = all.clone();
    others.remove(&agent);

    let knowing = |strikable| Knowledge { strikable: Some(strikable), ..Knowledge::default() };
    assert!(matches!(log.judged_by(&knowing(all)).ruling(I11), Ruling::Holds { checked: 7, .. }));
    let ruling = message(&log, &knowing(others), I11);
    let expected =
        format!("line {}: agent `{agent}` crashes, and no fault may strike it", crash + 1);
    assert!(ruling.contains(&expected), "{ruling}");
}

#[test]
fn run_that_ends_too_late_after_the_chaos_is_seen() {
    let log = stormy_log();
    assert!(
        matches!(log.judged().ruling(I12), Ruling::Holds { .. }),
        "{}",
        log.judged().ruling(I12)
    );
    let end = log.find("run_ended", |_| true);
    let mut late = log.clone();
    for place in end..late.0.len() {
        let at = late.event(place)["at_us"].as_u64().unwrap();
        late = late.with(place, "at_us", json!(at + 600_000_000));
    }
    late.violates(I12, late.0.len() - 1, "after the quiet phase began, where");

    // A store for which it has to wait so long explains it; one that is fast does not.
    let second = Duration::from_secs(1);
    let fast = Knowledge { sync: second, ..Knowledge::default() };
    assert!(message(&late, &fast, I12).contains("after the quiet phase began, where"));
    for slow in [
        Knowledge { sync: 301 * second, ..Knowledge::default() },
        Knowledge { sync_slow: 600 * second, ..Knowledge::default() },
    ] {
        assert!(matches!(late.judged_by(&slow).ruling(I12), Ruling::Holds { .. }), "{slow:?}");
    }

    let hasty = Knowledge { quiet_within: Some(Duration::from_micros(1)), ..Knowledge::default() };
    assert!(message(&log, &hasty, I12).contains("where 1µs suffice"));
}

#[test]
fn run_that_waits_for_ever_is_seen_when_time_goes_on() {
    let mut log = stormy_log();
    log.0.truncate(log.find("run_ended", |_| true));
    let at = log.event(log.0.len() - 1)["at_us"].as_u64().unwrap() + 600_000_000;
    let seq = log.0.len() + 1;
    let tick = json!({"seq": seq, "at_us": at, "kind": "phase_started", "phase": "later"});
    log.0.push(tick.to_string());

    log.violates(I12, log.0.len() - 1, "not everything has ended 60");
}

#[test]
fn ready_task_that_waits_for_nothing_is_seen() {
    let log = calm_log();
    let start = log.of_task("task_assigned", "flaky");
    let at = log.event(start)["at_us"].as_u64();
    let later = (start..).find(|place| log.event(*place)["at_us"].as_u64() > at).unwrap();
    assert!(later < log.of_task("task_failed", "flaky"), "the attempt ends later");
    // As if the assignment came when something else woke the scheduler.
    let log = log.repeated(start, later + 1).without(start);

    log.violates(
        I13,
        later - 1,
        "task `flaky` of run `garden` is ready and 2 agents of role `flaky` are idle",
    );
}

#[test]
fn permit_that_is_left_over_is_seen() {
    let log = calm_log();
    let ended = log.find("run_ended", |_| true);
    let held = json!({"kind": "quota_changed", "quota": "api", "in_use": 1, "limit": 1});
    let log = log.with_event(ended, held);

    log.violates(I14, ended + 1, "1 permits of quota `api` are held");
}

#[test]
fn what_a_harness_finds_left_over_is_told() {
    let leftovers = BTreeMap::from([("timers".to_owned(), 3), ("tasks".to_owned(), 0)]);
    let knowledge = Knowledge { leftovers: Some(leftovers), ..Knowledge::default() };

    assert!(message(&calm_log(), &knowledge, I14).contains("3 timers are left after the end"));
}

#[test]
fn second_run_with_another_log_is_seen() {
    let mut first = world(1).start().unwrap();
    let run = first.submit(garden(&first, "garden")).unwrap();
    first.run_until_ended(&run).unwrap();
    first.run_until_quiet().unwrap();
    let knowing = |hash| Knowledge { other_hash: Some(hash), ..Knowledge::default() };

    let log = calm_log();
    assert!(matches!(log.judged_by(&knowing(first.log_hash())).ruling(I15), Ruling::Holds { .. }));
    assert!(message(&log, &knowing(7), I15).contains("with the same seed 0000000000000007"));
}
