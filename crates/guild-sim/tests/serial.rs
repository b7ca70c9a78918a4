//! Histories that are serialisable and histories that are not, each recognised for what it is.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

use std::collections::BTreeMap;

use guild_core::draw::{Seed, Stream};
use guild_sim::checker::serial::AnomalyKind::{self, *};
use guild_sim::checker::serial::reader::{HistoryError, is_history, read};
use guild_sim::checker::serial::versions::{Commit, check};

/// Completed transactions, one after the other on one process each, none of which overlap unless
/// all are said to.
fn history(lines: &[(&str, &str)], at_once: bool) -> String {
    let line = |number: usize, kind: &str, value: &str| {
        format!(r#"{{"process":{number},"type":"{kind}","value":[{value}]}}"#)
    };
    let invoke = |number: usize| line(number, "invoke", "");
    let all = lines.iter().enumerate();
    let mut text = Vec::new();
    if at_once {
        text.extend((0..lines.len()).map(invoke));
    }
    for (number, (kind, value)) in all {
        if !at_once {
            text.push(invoke(number));
        }
        text.push(line(number, kind, value));
    }
    format!("[{}]", text.join(",\n"))
}

fn kinds(lines: &[(&str, &str)], at_once: bool) -> Vec<AnomalyKind> {
    read(&history(lines, at_once)).unwrap().check().kinds()
}

#[track_caller]
fn assert_kinds(lines: &[(&str, &str)], expected: &[AnomalyKind]) {
    assert_eq!(kinds(lines, true), expected);
}

#[test]
fn a_serialisable_history_has_no_anomaly() {
    let lines = [
        ("ok", r#"["append","x",1],["append","y",1]"#),
        ("ok", r#"["r","x",[1]],["append","x",2],["r","x",[1,2]]"#),
        ("fail", r#"["append","x",3]"#),
        ("info", r#"["append","y",2]"#),
        ("ok", r#"["r","x",[1,2]],["r","y",[1,2]]"#),
        ("ok", r#"["r","z",[]],["append","z",7]"#),
    ];
    assert_kinds(&lines, &[]);
    assert_eq!(kinds(&lines, false), []);
}

#[test]
fn who_reads_its_own_append_and_appends_once_more_does_not_come_before_itself() {
    let lines = [
        ("ok", r#"["append","x",1],["r","x",[1]],["append","x",2]"#),
        ("ok", r#"["append","x",3]"#),
    ];
    assert_kinds(&lines, &[]);
}

#[test]
fn g0_two_transactions_write_in_different_orders() {
    let lines = [
        ("ok", r#"["append","x",1],["append","y",1]"#),
        ("ok", r#"["append","x",2],["append","y",2]"#),
        ("ok", r#"["r","x",[1,2]],["r","y",[2,1]]"#),
    ];
    assert_kinds(&lines, &[G0]);
}

#[test]
fn g1a_a_failed_write_is_read_and_built_on() {
    let read = [("fail", r#"["append","x",1]"#), ("ok", r#"["r","x",[1]]"#)];
    assert_kinds(&read, &[G1a]);
    let lines = [
        ("fail", r#"["append","x",1]"#),
        ("ok", r#"["append","x",2]"#),
        ("ok", r#"["r","x",[1,2]]"#),
    ];
    assert_kinds(&lines, &[G1a, DirtyUpdate]);
}

#[test]
fn g1b_a_value_in_the_middle_of_a_transaction_is_read() {
    let lines = [
        ("ok", r#"["append","x",1],["append","x",2]"#),
        ("ok", r#"["r","x",[1]]"#),
        ("ok", r#"["r","x",[1,2]]"#),
    ];
    let found = kinds(&lines, true);
    assert!(found.contains(&G1b), "{found:?}");
}

#[test]
fn g1c_information_flows_in_a_circle() {
    let lines =
        [("ok", r#"["append","x",1],["r","y",[1]]"#), ("ok", r#"["append","y",1],["r","x",[1]]"#)];
    assert_kinds(&lines, &[G1c]);
}

#[test]
fn g_single_an_update_is_lost() {
    let lines = [
        ("ok", r#"["r","x",[]],["append","x",1]"#),
        ("ok", r#"["r","x",[]],["append","x",2]"#),
        ("ok", r#"["r","x",[1,2]]"#),
    ];
    assert_kinds(&lines, &[GSingle]);
}

#[test]
fn an_update_is_lost_that_nobody_has_read_since() {
    let lines = [
        ("ok", r#"["append","x",1]"#),
        ("ok", r#"["r","x",[1]],["append","x",2]"#),
        ("ok", r#"["r","x",[1]],["append","x",3]"#),
    ];
    assert_kinds(&lines, &[G2]);
}

#[test]
fn g_single_one_write_of_a_transaction_is_seen_and_the_other_is_not() {
    let lines =
        [("ok", r#"["append","x",1],["append","y",1]"#), ("ok", r#"["r","x",[1]],["r","y",[]]"#)];
    assert_kinds(&lines, &[GSingle]);
}

#[test]
fn g2_write_skew() {
    let lines =
        [("ok", r#"["r","x",[]],["append","y",1]"#), ("ok", r#"["r","y",[]],["append","x",1]"#)];
    assert_kinds(&lines, &[G2]);
}

#[test]
fn a_stale_read_is_found_by_the_order_in_real_time_alone() {
    let lines = [("ok", r#"["append","x",1]"#), ("ok", r#"["r","x",[]]"#)];
    assert_kinds(&lines, &[]);
    assert_eq!(kinds(&lines, false), [GSingleRealtime]);
}

#[test]
fn reads_that_fit_no_order_and_elements_out_of_nowhere_are_found() {
    let lines = [
        ("ok", r#"["append","x",1]"#),
        ("ok", r#"["append","x",2]"#),
        ("ok", r#"["r","x",[1,2]]"#),
        ("ok", r#"["r","x",[2]]"#),
    ];
    assert!(kinds(&lines, true).contains(&IncompatibleOrder));
    assert_kinds(&[("ok", r#"["r","x",[9]]"#)], &[UnexpectedElement]);
    let twice = [("ok", r#"["append","x",1]"#), ("ok", r#"["r","x",[1,1]]"#)];
    assert!(kinds(&twice, true).contains(&DuplicateElements));
}

#[test]
fn a_transaction_that_contradicts_itself_is_found() {
    assert_kinds(&[("ok", r#"["append","x",1],["r","x",[]]"#)], &[Internal]);
    let lines = [("ok", r#"["append","x",1]"#), ("ok", r#"["r","x",[]],["r","x",[1]]"#)];
    assert!(kinds(&lines, true).contains(&Internal));
}

#[test]
fn the_example_of_the_paper_is_a_read_skew() {
    // Kingsbury and Alvaro, section 7.
    let lines = [
        (
            "ok",
            r#"["append",253,1],["append",253,3],["append",253,4],["append",255,2],["append",255,3],["append",255,4],["append",255,5],["append",256,1],["append",256,2]"#,
        ),
        ("ok", r#"["append",255,8],["r",253,[1,3,4]]"#),
        ("ok", r#"["append",256,4],["r",255,[2,3,4,5,8]],["r",256,[1,2,4]],["r",253,[1,3,4]]"#),
        ("ok", r#"["append",250,10],["r",253,[1,3,4]],["r",255,[2,3,4,5]],["append",256,3]"#),
    ];
    assert_kinds(&lines, &[GSingle]);
}

#[test]
fn a_cycle_is_told_with_its_transactions_and_keys() {
    let lines =
        [("ok", r#"["r","x",[]],["append","y",1]"#), ("ok", r#"["r","y",[]],["append","x",1]"#)];
    let verdict = read(&history(&lines, true)).unwrap().check();
    let message = &verdict.anomalies[0].message;
    assert!(message.contains("rw(x)") && message.contains("rw(y)"), "{message}");
    assert!(message.contains("T2") && message.contains("T3"), "{message}");
    assert_eq!((verdict.anomalies[0].kind.name(), verdict.transactions), ("G2-item", 2));
}

/// As Jepsen writes them: the nemesis says what it does in words, and others read single registers.
#[test]
fn what_a_history_tells_of_its_nemesis_is_passed_over() {
    let lines = [
        r#"{"index":0,"type":"info","process":"nemesis","f":"start-partition","value":"majority"}"#,
        r#"{"index":1,"type":"invoke","process":0,"f":"txn","value":[["append",5,1]]}"#,
        r#"{"index":2,"type":"info","process":":nemesis","f":":start","value":{"n1":["n2"]}}"#,
        r#"{"index":3,"type":"invoke","process":1,"f":"read","value":null}"#,
        r#"{"index":4,"type":"ok","process":0,"f":"txn","value":[["append",5,1]]}"#,
        r#"{"index":5,"type":"ok","process":1,"f":"read","value":17}"#,
        r#"{"index":6,"type":"ok","process":2,"f":":txn","value":[["r",5,[1]]]}"#,
    ];
    for text in [lines.join("\n"), format!("[{}]", lines.join(",\n"))] {
        let verdict = read(&text).unwrap().check();
        assert!(verdict.anomalies.is_empty(), "{:?}", verdict.anomalies);
        assert_eq!(verdict.transactions, 2);
    }
}

#[test]
fn a_history_of_other_functions_alone_is_refused() {
    let read_of_register = r#"{"type":"ok","process":1,"f":"read","value":17}"#;
    assert_eq!(read(read_of_register).map(|_| ()), Err(HistoryError::NoLists));
}

#[test]
fn wrong_input_names_its_line() {
    let line = |text: &str| match read(text) {
        Err(HistoryError::Syntax { line, message }) => (line, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(" \n").map(|_| ()), Err(HistoryError::Empty));
    let good = r#"{"type":"ok","process":1,"value":[["r",1,[]]]}"#;
    assert_eq!(line(&format!("{good}\n{{\"type\":\"ok\"")).0, 2);
    assert_eq!(line(&format!("[{good},\n{good},\n[]]")).0, 3);
    assert_eq!(line(&format!("[{good},\n{good},\n{{\"type\":\n7}}]")).0, 4);
    let (_, message) = line(&good.replace("\"r\"", "\"cas\""));
    assert!(message.contains("cas"), "{message}");
    line(&good.replace("[]]", "[],5]"));
    line(&good.replace("\"ok\"", "\"perhaps\""));
    let twice = r#"{"type":"invoke","process":1,"value":[]}"#;
    let error = read(&format!("{twice}\n{twice}")).unwrap_err();
    assert!(error.to_string().contains("process 1"), "{error}");
    assert!(is_history(good) && is_history(&format!("[{good}]")));
    assert!(!is_history(r#"{"seq":1,"at_us":0,"kind":"run_submitted"}"#));
}

/// What a transaction has read: lists by key.
type Reads = Vec<(u64, Vec<u64>)>;

/// Runs transactions of random steps; each begins and reads at some time and commits at another.
/// With `validated` a transaction whose reads have changed meanwhile fails.
fn random_history(seed: u64, count: u64, validated: bool) -> String {
    let draw = |entity: u64, n: u64, bound: u64| Seed(seed).bits(Stream::Plan, entity, n) % bound;
    let (sessions, keys) = (8, 5);
    let mut lists: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut open: BTreeMap<u64, (u64, Reads)> = BTreeMap::new();
    let mut text = Vec::new();
    let mut step = 0;
    let mut begun = 0;
    while begun < count || !open.is_empty() {
        step += 1;
        let process = draw(step, 0, sessions);
        if let Some((number, seen)) = open.remove(&process) {
            let key = draw(number, 1, keys);
            let element = number + 1;
            let reads: Vec<_> =
                seen.iter().map(|(key, list)| format!(r#"["r",{key},{list:?}]"#)).collect();
            let fits =
                |(key, list): &(u64, Vec<u64>)| lists.get(key).map_or(&[][..], |l| l) == &list[..];
            let kind = if !validated || seen.iter().all(fits) { "ok" } else { "fail" };
            if kind == "ok" {
                lists.entry(key).or_default().push(element);
            }
            let value = format!(r#"{},["append",{key},{element}]"#, reads.join(","));
            text.push(format!(r#"{{"type":"{kind}","process":{process},"value":[{value}]}}"#));
        } else if begun < count {
            let read = |n| {
                let key = draw(begun, n, keys);
                (key, lists.get(&key).cloned().unwrap_or_default())
            };
            let mut seen = vec![read(2), read(3)];
            seen.dedup_by_key(|(key, _)| *key);
            open.insert(process, (begun, seen));
            text.push(format!(r#"{{"type":"invoke","process":{process},"value":[]}}"#));
            begun += 1;
        }
    }
    text.join("\n")
}

/// The read of a key that the transaction itself appends to is before the append, so the list that
/// was read must not end in it; a validated run is serialisable by construction.
#[test]
fn what_was_validated_is_serialisable_and_what_was_not_is_not() {
    for seed in 0..40 {
        let verdict = read(&random_history(seed, 150, true)).unwrap().check();
        assert!(verdict.is_serialisable(), "seed {seed}: {:?}", verdict.anomalies);
        assert!(verdict.dependencies > 150);
        let verdict = read(&random_history(seed, 150, false)).unwrap().check();
        assert!(!verdict.is_serialisable(), "seed {seed}");
    }
}

fn commit(version: u64, snapshot: u64, reads: &[(&str, Option<u64>)], writes: &[&str]) -> Commit {
    Commit {
        version,
        from: version,
        to: version + 100,
        snapshot,
        reads: reads.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect(),
        writes: writes.iter().map(|key| (*key).to_owned()).collect(),
        ..Commit::default()
    }
}

#[test]
fn commits_that_read_what_was_there_are_serialisable() {
    let commits = [
        commit(1, 0, &[("a", None)], &["a", "b"]),
        commit(2, 1, &[("a", Some(1))], &["a"]),
        commit(3, 1, &[("b", Some(1))], &["c"]),
    ];
    let verdict = check(&commits);
    assert!(verdict.is_serialisable(), "{:?}", verdict.anomalies);
    assert_eq!(verdict.transactions, 3);
}

#[test]
fn lost_updates_write_skew_and_phantoms_of_commits_are_found() {
    let first = commit(1, 0, &[], &["a", "b"]);
    let lost = [
        first.clone(),
        commit(2, 1, &[("a", Some(1))], &["a"]),
        commit(3, 1, &[("a", Some(1))], &["a"]),
    ];
    assert_eq!(check(&lost).kinds(), [GSingle]);
    let both = [("a", Some(1)), ("b", Some(1))];
    let skew = [first.clone(), commit(2, 1, &both, &["a"]), commit(3, 1, &both, &["b"])];
    assert_eq!(check(&skew).kinds(), [G2]);
    let range = |mut commit: Commit, last: Option<&str>, rows| {
        commit.ranges = vec![("p/".to_owned(), last.map(str::to_owned), rows)];
        commit
    };
    let phantom = [
        commit(1, 0, &[], &["p/1"]),
        range(commit(2, 1, &[], &["p/2"]), None, 1),
        range(commit(3, 1, &[], &["p/3"]), None, 1),
    ];
    assert_eq!(check(&phantom).kinds(), [G2]);
    let limited = [
        commit(1, 0, &[], &["p/1"]),
        range(commit(2, 1, &[], &["p/2"]), Some("p/1"), 1),
        range(commit(3, 1, &[], &["p/3"]), Some("p/1"), 1),
    ];
    assert_eq!(check(&limited).kinds(), []);
}

#[test]
fn phantoms_in_ranges_that_are_no_prefixes_are_found() {
    let span = |mut commit: Commit, (from, to, last): (&str, Option<&str>, Option<&str>), rows| {
        let text = |key: Option<&str>| key.map(str::to_owned);
        commit.spans = vec![(from.to_owned(), text(to), text(last), rows)];
        commit
    };
    let found = |range, rows| {
        let commits = [
            commit(1, 0, &[], &["b", "m"]),
            span(commit(2, 1, &[], &["k"]), range, rows),
            span(commit(3, 1, &[], &["l"]), range, rows),
        ];
        check(&commits).kinds()
    };
    // Each writes into what the other one has seen, unless that ends before.
    assert_eq!(found(("c", Some("n"), None), 1), [G2]);
    assert_eq!(found(("c", None, None), 1), [G2]);
    assert_eq!(found(("a", Some("c"), None), 1), []);
    assert_eq!(found(("a", None, Some("b")), 1), []);
    assert_eq!(found(("m", Some("z"), None), 1), []);
    assert_eq!(found(("m", Some("z"), None), 2), [UnexpectedElement]);
    assert_eq!(found(("z", Some("a"), None), 0), [], "it is upside down, and so empty");
}

#[test]
fn reads_of_what_was_not_there_are_found() {
    let first = commit(1, 0, &[], &["a"]);
    let never = [first.clone(), commit(2, 1, &[("b", Some(1))], &["c"])];
    assert_eq!(check(&never).kinds(), [UnexpectedElement]);
    let absent = [first.clone(), commit(2, 1, &[("a", None)], &["c"])];
    assert_eq!(check(&absent).kinds(), [UnexpectedElement]);
    let mut gone = first.clone();
    (gone.version, gone.writes, gone.deletes) = (2, vec![], vec!["a".to_owned()]);
    gone.to += 1;
    let mut late = commit(3, 2, &[("a", Some(1))], &["c"]);
    late.from = 500;
    late.to = 501;
    assert!(check(&[first, gone, late]).kinds().contains(&UnexpectedElement));
}
