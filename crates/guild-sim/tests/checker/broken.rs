//! Texts that are no event log, and logs without an end.

use guild_core::event::parse_line;
use guild_sim::checker::{Checker, Invariant};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Log, calm_log};

fn broken(log: &Log) -> String {
    let verdict = log.judged();
    assert!(!verdict.is_clean());
    verdict.broken.map(|broken| broken.to_string()).unwrap_or_default()
}

#[test]
fn line_that_is_cut_is_named() {
    let mut log = calm_log();
    log.0.truncate(10);
    log.0[9].truncate(30);

    assert!(broken(&log).starts_with("line 10: column 30: EOF while parsing"), "{}", broken(&log));
}

#[test]
fn gap_and_disorder_are_named() {
    let log = calm_log();
    let mut gap = log.clone();
    gap.0.remove(5);
    assert_eq!(broken(&gap), "line 6: seq is 7, not 6: 1 events are missing");
    let mut swapped = log.clone();
    swapped.0.swap(5, 6);
    assert_eq!(broken(&swapped), "line 6: seq is 7, not 6: 1 events are missing");
    let mut doubled = log.clone();
    doubled.0.insert(5, doubled.0[4].clone());
    assert_eq!(broken(&doubled), "line 6: seq is 5, not 6: events are out of order or doubled");
    let last = log.0.len() - 1;
    let early = log.with(last, "at_us", json!(0));
    assert!(broken(&early).contains("at_us is 0, before the"), "{}", broken(&early));
}

#[test]
fn line_that_lacks_a_field_is_named() {
    let log = calm_log();
    let start = log.of_task("task_assigned", "leaf-1");
    let mut event: serde_json::Map<_, _> = serde_json::from_str(&log.0[start]).unwrap();
    event.remove("token");
    let mut log = log;
    log.0[start] = json!(event).to_string();

    let expected = format!("line {}: the event `task_assigned` lacks the field `token`", start + 1);
    assert_eq!(broken(&log), expected);
}

#[test]
fn kinds_that_are_not_known_are_passed_over_and_counted() {
    let log = calm_log();
    let log = log.with_event(20, json!({"kind": "comet_seen", "tail": [1, 2, 3]}));

    let verdict = log.judged();

    assert!(verdict.is_clean());
    assert_eq!(verdict.unknown_kinds, 1);
}

/// A log of many runs, one after the other: nothing of a run stays but a hash of its name.
#[test]
fn memory_does_not_grow_with_the_length_of_the_log() {
    let mut checker = Checker::new();
    let mut seq = 0;
    let mut line = |checker: &mut Checker, mut event: serde_json::Value| {
        seq += 1;
        event["seq"] = json!(seq);
        event["at_us"] = json!(seq);
        checker.line(&event.to_string());
    };
    line(
        &mut checker,
        json!({"kind": "agent_started", "agent": "w-0", "role": "w", "incarnation": 1}),
    );
    let mut sizes = Vec::new();
    for n in 0..300_u64 {
        let run = format!("run-{n}");
        line(
            &mut checker,
            json!({"kind": "run_submitted", "run": run, "tasks": 20, "edges": 0, "seed": 1}),
        );
        for task in 0..20_u64 {
            let task_name = format!("a-task-with-a-name-{task}");
            line(
                &mut checker,
                json!({"kind": "task_added", "run": run, "task": task_name, "role": "w", "after": []}),
            );
            line(&mut checker, json!({"kind": "task_ready", "run": run, "task": task_name}));
            let (token, version) = (n * 20 + task + 1, n * 20 + task + 1);
            let lease = json!({"kind": "task_assigned", "run": run, "task": task_name, "attempt": 1,
                "agent": "w-0", "incarnation": 1, "token": token});
            line(&mut checker, lease.clone());
            let mut end = lease;
            end["kind"] = json!("task_completed");
            end["version"] = json!(version);
            line(&mut checker, end);
        }
        line(
            &mut checker,
            json!({"kind": "run_ended", "run": run, "outcome": "completed", "completed": 20,
            "failed": 0, "skipped": 0, "cancelled": 0, "makespan_us": 1}),
        );
        sizes.push(format!("{checker:?}").len());
    }

    // What it knows, as text: it grows by the hash of a name for each run, and by nothing else.
    let grown = sizes[299] - sizes[99];
    assert!(grown < 200 * 24, "{grown} more characters after 200 more runs");
    assert!(checker.finish().is_clean());
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_or_a_checker_panic(
        place in 0_usize..150, at in 0_usize..400, byte in 0_u8..128, cut in any::<bool>(),
    ) {
        let mut log = LOG.clone();
        let place = place % log.0.len();
        let mut line = log.0[place].clone().into_bytes();
        let at = at % line.len();
        if cut {
            line.truncate(at);
        } else {
            line[at] = byte;
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        drop(parse_line(&line));
        log.0[place] = line;
        prop_assert_eq!(log.judged().rulings.len(), Invariant::ALL.len());
    }

    #[test]
    fn no_order_of_events_makes_a_checker_panic(
        moves in prop::collection::vec((0_usize..1_000, 0_usize..1_000), 1..20),
    ) {
        let mut log = LOG.clone();
        for (from, to) in moves {
            let (from, to) = (from % log.0.len(), to % log.0.len());
            let line = log.0.remove(from);
            log.0.insert(to, line);
        }
        let mut checker = Checker::new();
        for (seq, line) in (1..).zip(&log.0) {
            let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["seq"] = json!(seq);
            event["at_us"] = json!(seq);
            checker.line(&event.to_string());
        }
        let verdict = checker.finish();
        prop_assert_eq!(verdict.broken, None);
    }
}

static LOG: std::sync::LazyLock<Log> = std::sync::LazyLock::new(calm_log);
