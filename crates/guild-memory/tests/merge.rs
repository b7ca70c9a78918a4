//! Merge operations and conditions: they never conflict, never lose anything, and are refused by name.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::World;
use guild_core::id::CommitVersion;
use guild_core::payload::Payload;
use guild_memory::{
    CommitError, Condition, Merge, Transaction, TransactionError, Unmet, Violation,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn json(world: &World, key: &str) -> Value {
    world.memory.snapshots().latest().value(key).unwrap().unwrap_or(Value::Null)
}

fn put(world: &mut World, key: &str, value: &Value) {
    let mut transaction = world.begin();
    transaction.put(key, value).unwrap();
    world.commit(transaction).unwrap();
}

fn unmet(result: Result<CommitVersion, CommitError>) -> Unmet {
    match result {
        Err(error @ CommitError::Unmet(_)) if !error.is_retryable() => panic!("{error}"),
        Err(CommitError::Unmet(unmet)) => *unmet,
        other => panic!("{other:?}"),
    }
}

fn payload(value: Value) -> Payload {
    Payload::encode(&value).unwrap()
}

#[test]
fn each_operation_does_what_it_says() {
    let mut world = World::volatile();
    for (base, merge, expected) in [
        (json!(null), Merge::Add { amount: 5 }, json!(null)),
        (json!(3), Merge::Add { amount: 5 }, json!(8)),
        (json!(3), Merge::Max { value: payload(json!(5)) }, json!(5)),
        (json!(3), Merge::Max { value: payload(json!(2.5)) }, json!(3)),
        (json!(3.5), Merge::Min { value: payload(json!(3)) }, json!(3)),
        (json!(i64::MAX), Merge::Max { value: payload(json!(u64::MAX)) }, json!(u64::MAX)),
        (json!("a"), Merge::Max { value: payload(json!("b")) }, json!("b")),
        (json!("a"), Merge::Min { value: payload(json!("b")) }, json!("a")),
        (
            json!([1, "x"]),
            Merge::SetAdd { element: payload(json!({"a": 1})) },
            json!([1, "x", {"a": 1}]),
        ),
        (json!([1, "x"]), Merge::SetAdd { element: payload(json!("x")) }, json!([1, "x"])),
        (json!([1, "x", 1]), Merge::SetRemove { element: payload(json!(1)) }, json!(["x"])),
        (json!([1, 2]), Merge::Append { element: payload(json!(3)), len_max: 3 }, json!([1, 2, 3])),
        (json!([1, 2]), Merge::Append { element: payload(json!(3)), len_max: 2 }, json!([2, 3])),
        (json!(1), Merge::PutIfAbsent { value: payload(json!(2)) }, json!(1)),
        (
            json!({"a": 1, "b": 2}),
            Merge::Patch { patch: payload(json!({"a": null, "c": 3})) },
            json!({"b": 2, "c": 3}),
        ),
    ] {
        put(&mut world, "key", &base);
        let mut transaction = world.begin();
        transaction.merge("key", merge.clone()).unwrap();
        let result = world.commit(transaction);
        if base.is_null() {
            assert!(matches!(result, Err(CommitError::Invalid(Violation::Merge(_)))), "{result:?}");
        }
        assert_eq!(json(&world, "key"), expected, "{base} {merge:?}");
    }
}

#[test]
fn an_absent_key_is_where_each_operation_begins() {
    let mut world = World::volatile();
    let mut t = world.begin();
    t.add("add", 1).unwrap();
    t.add_at_least("escrow", 1, 0).unwrap();
    t.max("max", &-1).unwrap();
    t.min("min", "text").unwrap();
    t.set_add("set", &1).unwrap();
    t.set_remove("gone", &1).unwrap();
    t.append("list", &1, 10).unwrap();
    t.put_if_absent("absent", &1).unwrap();
    t.patch("patch", &json!({"a": {"b": null, "c": 1}})).unwrap();
    world.commit(t).unwrap();
    let keys = ["add", "escrow", "max", "min", "set", "gone", "list", "absent", "patch"];
    let found: Vec<Value> = keys.iter().map(|key| json(&world, key)).collect();
    let expected = json!([1, 1, -1, "text", [1], null, [1], 1, {"a": {"c": 1}}]);
    assert_eq!(Value::Array(found), expected);
    assert!(world.memory.snapshots().latest().get(b"gone").is_none());
}

#[test]
fn operations_on_one_key_never_conflict() {
    let mut world = World::volatile();
    put(&mut world, "stock", &json!(1_000));
    let sessions: Vec<_> = (0..100)
        .map(|number| {
            let mut t = world.begin();
            t.add("sum", 2).unwrap();
            t.add_at_least("stock", -3, 0).unwrap();
            t.max("max", &number).unwrap();
            t.min("min", &number).unwrap();
            t.set_add("set", &(number % 5)).unwrap();
            t.append("list", &number, 3).unwrap();
            t.put_if_absent("first", &number).unwrap();
            t.patch("object", &json!({ (number % 5).to_string(): number })).unwrap();
            t
        })
        .collect();
    for session in sessions {
        world.commit(session).unwrap();
    }
    let keys = ["sum", "stock", "max", "min", "set", "list", "first", "object"];
    let found: Vec<Value> = keys.iter().map(|key| json(&world, key)).collect();
    let expected = json!([200, 700, 99, 0, [0, 1, 2, 3, 4], [97, 98, 99], 0,
        {"0": 95, "1": 96, "2": 97, "3": 98, "4": 99}]);
    assert_eq!(Value::Array(found), expected);
}

#[test]
fn a_merge_on_a_value_of_another_type_is_refused_with_both_types() {
    let mut world = World::volatile();
    let text = |value| payload(json!(value));
    for (base, merge, message) in [
        (
            json!("x"),
            Merge::Add { amount: 1 },
            "cannot add to memory key `key`: it holds a string; an integer of 64 bits is needed",
        ),
        (
            json!({}),
            Merge::Max { value: payload(json!(1)) },
            "cannot raise memory key `key`: it holds an object; a number is needed",
        ),
        (
            json!(1),
            Merge::Min { value: text("x") },
            "cannot lower memory key `key`: it holds an integer; a string is needed",
        ),
        (
            json!(1),
            Merge::SetAdd { element: text("x") },
            "cannot add an element to memory key `key`: it holds an integer; a list is needed",
        ),
        (
            json!(true),
            Merge::SetRemove { element: text("x") },
            "cannot remove an element from memory key `key`: it holds a boolean; a list is needed",
        ),
        (
            json!({}),
            Merge::Append { element: text("x"), len_max: 1 },
            "cannot append to memory key `key`: it holds an object; a list is needed",
        ),
    ] {
        put(&mut world, "key", &base);
        let mut transaction = world.begin();
        transaction.put("other", &1).unwrap();
        transaction.merge("key", merge.clone()).unwrap();
        match world.commit(transaction) {
            Err(CommitError::Invalid(violation)) => assert_eq!(violation.to_string(), message),
            other => panic!("{merge:?}: {other:?}"),
        }
        // The transaction that has put the value itself is told at once.
        let mut transaction = world.begin();
        transaction.put("key", &base).unwrap();
        let refused = transaction.merge("key", merge).unwrap_err();
        assert_eq!(refused.to_string(), message);
        assert_eq!(transaction.get::<Value>("key").unwrap(), Some(base));
    }
    assert_eq!(json(&world, "other"), Value::Null, "nothing was half done");
    let mut transaction = world.begin();
    transaction.put_bytes("key", "not JSON");
    let refused = transaction.patch("key", &json!({})).unwrap_err();
    assert!(refused.to_string().contains("bytes that are no JSON"), "{refused}");
    let refused = transaction.max("key", &json!([])).unwrap_err();
    assert!(matches!(refused, TransactionError::WrongOperand { .. }), "{refused}");
    let deep = Payload::from_json("[".repeat(200) + &"]".repeat(200));
    let refused = transaction.merge("key", Merge::Patch { patch: deep }).unwrap_err();
    assert!(matches!(refused, TransactionError::WrongOperand { .. }), "{refused}");
}

#[test]
fn escrow_tells_at_once_that_too_little_is_there() {
    let mut world = World::volatile();
    world.put_all(&[("stock", 5)]);
    let mut t = world.begin();
    t.add_at_least("stock", -3, 0).unwrap();
    let refused = t.add_at_least("stock", -3, 0).unwrap_err();
    let expected =
        TransactionError::BelowFloor { key: "stock".into(), value: 2, amount: -3, floor: 0 };
    assert_eq!(refused, expected);
    assert!(refused.depends_on_others());
    t.add_at_least("stock", -2, 0).unwrap();
    world.commit(t).unwrap();
    assert_eq!(world.value("stock"), Some(0));
}

#[test]
fn escrow_that_others_have_broken_is_refused_at_the_commit_and_told_when_run_again() {
    let mut world = World::volatile();
    world.put_all(&[("stock", 5)]);
    let take = |t: &mut Transaction| {
        t.add_at_least("stock", -3, 0)?;
        t.add("taken", 3)
    };
    let (mut a, mut b) = (world.begin(), world.begin());
    take(&mut a).unwrap();
    take(&mut b).unwrap();
    world.commit(a).unwrap();
    let refused = unmet(world.commit(b));
    assert!(matches!(refused.error, TransactionError::BelowFloor { value: 2, .. }), "{refused}");
    assert_eq!((refused.read_at.0, refused.now_at.map(|at| at.0)), (1, Some(2)));
    assert!(take(&mut world.begin()).is_err(), "the newer snapshot shows it");
    assert_eq!((world.value("stock"), world.value("taken")), (Some(2), Some(3)));
}

/// As `docs/memory.md` tells callers from outside to do it.
#[test]
fn what_requires_the_absence_of_a_key_that_it_puts_is_done_once() {
    let mut world = World::volatile();
    world.put_all(&[("stock", 5)]);
    let order = |t: &mut Transaction| {
        t.check("done/order-17", Condition::Absent)?;
        t.put("done/order-17", &true)?;
        t.add("stock", -1)
    };
    let (mut a, mut b) = (world.begin(), world.begin());
    order(&mut a).unwrap();
    order(&mut b).unwrap();
    world.commit(a).unwrap();
    let refused = unmet(world.commit(b));
    assert!(matches!(refused.error, TransactionError::Unmet { .. }), "{refused}");
    let again = order(&mut world.begin());
    assert!(matches!(again, Err(TransactionError::Unmet { .. })), "{again:?}");
    assert_eq!(world.value("stock"), Some(4));
}

#[test]
fn a_requirement_that_a_removal_has_broken_names_its_version() {
    let mut world = World::volatile();
    world.put_all(&[("stock", 5)]);
    let mut take = world.begin();
    take.add_at_least("stock", -3, 0).unwrap();
    let mut empty = world.begin();
    empty.delete("stock");
    let version = world.commit(empty).unwrap();
    let refused = unmet(world.commit(take));
    assert_eq!((refused.now_at, refused.is_removed), (Some(version), true));
    assert!(refused.to_string().ends_with("(read at version 1, removed at 2)"), "{refused}");
}

#[test]
fn what_is_done_instead_holds_only_while_the_refusal_does() {
    let decline = |world: &World| {
        let mut t = world.begin();
        t.add_at_least("stock", -3, 0).unwrap_err();
        t.append("declined", "order", 10).unwrap();
        t
    };
    // Others change the stock, and there is still too little.
    let mut world = World::volatile();
    world.put_all(&[("stock", 1)]);
    let declined = decline(&world);
    world.put_all(&[("stock", 2)]);
    world.commit(declined).unwrap();
    // Others fill it up.
    let declined = decline(&world);
    world.put_all(&[("stock", 3)]);
    let Err(CommitError::Conflict(conflict)) = world.commit(declined) else { panic!("accepted") };
    assert_eq!(conflict.key.as_deref(), Some("stock"));
    assert_eq!(json(&world, "declined"), json!(["order"]));
}

#[test]
fn a_refusal_that_nothing_was_written_for_never_conflicts() {
    let mut world = World::volatile();
    let mut t = world.begin();
    t.add_at_least("stock", -3, 0).unwrap_err();
    world.put_all(&[("stock", 3)]);
    assert_eq!(world.commit(t).unwrap().0, 0, "as of its snapshot");
}

#[test]
fn escrow_counts_even_when_its_result_is_overwritten() {
    let mut world = World::volatile();
    world.put_all(&[("stock", 5)]);
    let mut t = world.begin();
    t.add_at_least("stock", -3, 0).unwrap();
    t.put("stock", &100).unwrap();
    t.add("stock", 1).unwrap();
    assert_eq!(t.get::<i64>("stock").unwrap(), Some(101));
    let mut same = world.begin();
    same.add_at_least("stock", -3, 0).unwrap();
    same.delete("stock");
    world.commit(t).unwrap();
    world.put_all(&[("stock", 2)]);
    unmet(world.commit(same));
    assert_eq!(world.value("stock"), Some(2));
}

#[test]
fn conditions_are_looked_at_when_stated_and_at_the_commit() {
    for (condition, good, bad) in [
        (Condition::Exists, json!(1), None),
        (Condition::AtLeast(3), json!(3), Some(json!(2))),
        (Condition::AtMost(3), json!(3), Some(json!(4))),
        (
            Condition::Equals(payload(json!({"b": 1, "a": 2}))),
            json!({"a": 2, "b": 1}),
            Some(json!(1)),
        ),
    ] {
        let mut world = World::volatile();
        let make = |world: &mut World, value: &Option<Value>| {
            let mut t = world.begin();
            match value {
                Some(value) => t.put("key", value).unwrap(),
                None => t.delete("key"),
            }
            world.commit(t).unwrap();
        };
        make(&mut world, &bad);
        let stated = world.begin().check("key", condition.clone());
        assert!(matches!(stated, Err(TransactionError::Unmet { .. })), "{condition}: {stated:?}");

        make(&mut world, &Some(good.clone()));
        let (mut kept, mut broken) = (world.begin(), world.begin());
        for session in [&mut kept, &mut broken] {
            session.check("key", condition.clone()).unwrap();
            session.add("done", 1).unwrap();
        }
        // Written again, so a read would conflict.
        make(&mut world, &Some(good));
        world.commit(kept).unwrap();
        make(&mut world, &bad);
        unmet(world.commit(broken));
        assert_eq!(world.value("done"), Some(1), "{condition}");
    }
    let mut world = World::volatile();
    let mut t = world.begin();
    t.check("key", Condition::Absent).unwrap();
    t.put("key", &1).unwrap();
    assert!(t.check("key", Condition::Absent).is_err(), "it sees its own writes");
    world.put_all(&[("key", 2)]);
    let refused = unmet(world.commit(t));
    assert_eq!(
        refused.to_string(),
        "memory key `key` holds 2, but it must be absent (read at version 0, now at 1)",
    );
    assert_eq!(world.value("key"), Some(2));
}

#[test]
fn a_transaction_of_nothing_but_a_condition_is_looked_at_too() {
    let mut world = World::volatile();
    world.put_all(&[("key", 5)]);
    let mut t = world.begin();
    t.check("key", Condition::AtLeast(5)).unwrap();
    assert_eq!(world.commit(t).unwrap().0, 1);
    let mut t = world.begin();
    t.check("key", Condition::AtLeast(5)).unwrap();
    world.put_all(&[("key", 4)]);
    unmet(world.commit(t));
}

#[test]
fn an_operation_that_changes_nothing_writes_nothing() {
    let mut world = World::volatile();
    put(&mut world, "set", &json!([1]));
    let mut reader = world.begin();
    reader.get::<Value>("set").unwrap();
    reader.put("seen", &1).unwrap();
    let mut t = world.begin();
    t.set_add("set", &1).unwrap();
    t.set_remove("set", &2).unwrap();
    assert_eq!(world.commit(t).unwrap().0, 1, "no new version");
    world.commit(reader).unwrap();
}

#[test]
fn operations_count_towards_the_limits() {
    let mut world = World::volatile();
    let mut t = world.begin();
    for number in 0..2_049 {
        t.set_add("set", &number).unwrap();
        t.set_remove("set", &number).unwrap();
    }
    match world.commit(t) {
        Err(CommitError::Invalid(Violation::TooManyWrites { writes, .. })) => {
            assert_eq!(writes, 4_098);
        }
        other => panic!("{other:?}"),
    }
}

fn merge() -> impl Strategy<Value = Merge> {
    let number = -3..4i64;
    let element = number.clone().prop_map(|number| payload(json!(number)));
    prop_oneof![
        number.clone().prop_map(|amount| Merge::Add { amount }),
        (number.clone(), number).prop_map(|(amount, floor)| Merge::AddAtLeast { amount, floor }),
        element.clone().prop_map(|value| Merge::Max { value }),
        element.clone().prop_map(|value| Merge::Min { value }),
        element.clone().prop_map(|value| Merge::PutIfAbsent { value }),
        element.clone().prop_map(|element| Merge::SetAdd { element }),
        element.clone().prop_map(|element| Merge::SetRemove { element }),
        (element, 0..3usize).prop_map(|(element, len_max)| Merge::Append { element, len_max }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Operations in one transaction, composed before anybody knows the value, do what the same
    /// operations in transactions of their own do, one after the other.
    #[test]
    fn composed_operations_are_the_operations_in_turn(
        base in prop_oneof![
            Just(None), (-3..4i64).prop_map(|n| Some(json!(n))), Just(Some(json!([1, 2])))
        ],
        merges in prop::collection::vec(merge(), 1..6),
    ) {
        let (mut one, mut many) = (World::volatile(), World::volatile());
        if let Some(base) = &base {
            put(&mut one, "key", base);
            put(&mut many, "key", base);
        }
        let mut in_turn = Ok(());
        for merge in &merges {
            let mut t = many.begin();
            let result = t.merge("key", merge.clone()).map_err(|error| error.to_string());
            let result = result.and_then(|()| {
                many.commit(t).map(drop).map_err(|error| match error {
                    CommitError::Invalid(violation) => violation.to_string(),
                    other => panic!("{other:?}"),
                })
            });
            in_turn = in_turn.and(result);
        }
        let mut t = one.begin();
        let stated = merges.iter().try_for_each(|merge| t.merge("key", merge.clone()));
        let composed = match stated {
            Ok(()) => one.commit(t).map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        // Adjacent additions are one, so an overflow or the order of errors may differ; whether it
        // works, and what comes out, may not.
        prop_assert_eq!(composed.is_ok(), in_turn.is_ok(), "{:?} {:?}", composed, in_turn);
        if composed.is_ok() {
            prop_assert_eq!(json(&one, "key"), json(&many, "key"));
        }
    }
}

#[test]
fn an_escrow_on_a_key_that_is_cleared_afterwards_reads_as_absent() {
    let mut world = World::volatile();
    put(&mut world, "k/3", &json!(2));

    let mut transaction = world.begin();
    transaction.add_at_least("k/3", -2, 0).unwrap();
    transaction.delete_range("k/0".."k/4");
    assert_eq!(transaction.get::<i64>("k/3").unwrap(), None);
    assert_eq!(transaction.get_untracked::<i64>("k/3").unwrap(), None);
    assert_eq!(transaction.scan_prefix::<i64>("k/", 10).unwrap(), []);
    world.commit(transaction).unwrap();
    assert_eq!(world.begin().get::<i64>("k/3").unwrap(), None);
}
