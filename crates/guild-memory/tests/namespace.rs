//! Rights, quotas and policies of namespaces: what breaks a rule is refused with its name.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use std::sync::Arc;

use common::{World, task};
use guild_core::id::RoleId;
use guild_memory::{
    Access, Clash, CommitError, Condition, KeyRange, MergeFunctions, Namespace, Namespaces,
    OnConflict, Rights, Transaction, TransactionError, Violation,
};
use serde_json::{Value, json};

/// The tests' agents have role 0.
const ROLES: [&str; 2] = ["worker", "critic"];

fn rules(list: Vec<Namespace>) -> Arc<Namespaces> {
    let functions: MergeFunctions = [("union".to_owned(), Arc::new(union) as _)].into();
    Arc::new(Namespaces::new(list, &ROLES.map(String::from), &functions).unwrap())
}

/// A world with a run of many tasks and these rules.
fn world(list: Vec<Namespace>) -> (World, Arc<Namespaces>) {
    let (mut world, rules) = (World::volatile(), rules(list));
    world.memory.set_namespaces(Arc::clone(&rules));
    world.submit("run", 100);
    (world, rules)
}

/// Makes one list out of two; anything else cannot be merged.
fn union(clash: Clash<'_>) -> Result<Option<Value>, String> {
    let list = |value: Option<Value>| match value {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => Ok(list),
        Some(_) => Err("no list".to_owned()),
    };
    let mut all = list(clash.theirs)?;
    let base = list(clash.base)?;
    all.extend(list(clash.mine)?.into_iter().filter(|element| !base.contains(element)));
    Ok(Some(all.into()))
}

fn json(world: &World, key: &str) -> Value {
    world.memory.snapshots().latest().value(key).unwrap().unwrap_or(Value::Null)
}

/// Two transactions that have both read and put the key, one after the other.
fn meet(world: &mut World, values: [Value; 3]) -> Result<u64, CommitError> {
    let [base, theirs, mine] = values;
    let put = |world: &mut World, value: &Value| {
        let mut t = world.begin();
        t.put("ns/key", value).unwrap();
        world.commit(t).unwrap();
    };
    put(world, &base);
    let mut t = world.begin();
    t.get::<Value>("ns/key").unwrap();
    t.put("ns/key", &mine).unwrap();
    t.put("elsewhere", &mine).unwrap();
    put(world, &theirs);
    world.commit(t).map(|version| version.0)
}

#[test]
fn a_role_that_may_only_merge_can_neither_read_nor_overwrite() {
    let board = Namespace::new("board/").allow("worker", Rights::MERGE_ONLY);
    let (mut world, rules) = world(vec![board]);
    world.put_all(&[("board/votes", 1), ("free", 1)]);
    let begin = |world: &World| {
        world.begin().with_access(Access { namespaces: Arc::clone(&rules), role: RoleId(0) })
    };
    let mut t = begin(&world);
    let expected =
        "role `worker` may not read memory key `board/votes`: namespace `board/` allows it merge";
    for refused in [
        t.get::<i64>("board/votes").map(drop),
        t.get_untracked::<i64>("board/votes").map(drop),
        t.check("board/votes", Condition::Exists),
    ] {
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
    for range in [KeyRange::prefix("board/v"), KeyRange::all(), ("a".."board/w").into()] {
        let refused = t.scan::<i64>(range, 1);
        assert!(matches!(refused, Err(TransactionError::Denied(_))), "{refused:?}");
    }
    t.add("board/votes", 2).unwrap();
    t.add_at_least("board/votes", -1, 0).unwrap();
    assert_eq!(t.get::<i64>("free").unwrap(), Some(1));
    world.complete_with(task(0, 0), t).unwrap();
    assert_eq!(world.value("board/votes"), Some(2));

    let writes: [fn(&mut Transaction); 3] = [
        |t| t.put("board/votes", &0).unwrap(),
        |t| t.delete("board/votes"),
        |t| t.delete_range(..),
    ];
    for write in writes {
        let mut t = begin(&world);
        t.put("free", &2).unwrap();
        write(&mut t);
        match world.complete_with(task(0, 1), t) {
            Err(CommitError::Invalid(Violation::Denied(denied))) => {
                assert_eq!((denied.right, &*denied.namespace), ("write", "board/"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((world.value("board/votes"), world.value("free")), (Some(2), Some(1)));
    world.put_all(&[("board/votes", 9)]);
}

#[test]
fn quotas_bound_growth_and_nothing_else() {
    let (mut world, _) =
        world(vec![Namespace::new("few/").rows_max(2), Namespace::new("small/").bytes_max(20)]);
    let refused = |result: Result<_, CommitError>| match result {
        Err(CommitError::Invalid(violation @ Violation::NamespaceFull { .. })) => {
            violation.to_string()
        }
        other => panic!("{other:?}"),
    };
    world.put_all(&[("few/1", 1), ("few/2", 2), ("other", 3)]);
    let mut third = world.begin();
    third.put("few/3", &1).unwrap();
    third.put("other", &4).unwrap();
    assert_eq!(
        refused(world.commit(third)),
        "memory namespace `few/` would hold 3; rows_max allows 2: remove something there, or raise rows_max",
    );
    assert_eq!(world.value("other"), Some(3));
    let mut moved = world.begin();
    moved.delete("few/1");
    moved.put("few/3", &1).unwrap();
    world.commit(moved).unwrap();

    world.put_all(&[("small/a", 1)]);
    let mut grown = world.begin();
    grown.put("small/a", "fourteen bytes").unwrap();
    assert!(refused(world.commit(grown)).contains("would hold 23; bytes_max allows 20"));
    // A lower bound than what is there stops growth and lets it shrink.
    world.memory.set_namespaces(rules(vec![Namespace::new("few/").rows_max(1)]));
    let mut same = world.begin();
    same.put("few/2", &1).unwrap();
    world.commit(same).unwrap();
    let mut more = world.begin();
    more.put("few/4", &1).unwrap();
    refused(world.commit(more));
    let mut none = world.begin();
    none.delete_range(KeyRange::prefix("few/"));
    none.put("few/5", &1).unwrap();
    world.commit(none).unwrap();
}

#[test]
fn the_last_writer_wins_where_the_namespace_says_so() {
    let (mut world, _) = world(vec![Namespace::new("ns/").on_conflict(OnConflict::LastWriterWins)]);
    meet(&mut world, [json!(1), json!(2), json!(3)]).unwrap();
    assert_eq!((json(&world, "ns/key"), json(&world, "elsewhere")), (json!(3), json!(3)));
    // It does not help a transaction that has read something elsewhere.
    let mut t = world.begin();
    t.get::<i64>("elsewhere").unwrap();
    t.scan::<i64>(KeyRange::prefix("ns/"), 10).unwrap();
    t.put("ns/key", &4).unwrap();
    world.put_all(&[("ns/other", 1)]);
    let mut same = world.begin();
    same.scan::<i64>(KeyRange::prefix("ns/"), 10).unwrap();
    same.put("ns/key", &5).unwrap();
    world.put_all(&[("elsewhere", 1), ("ns/third", 1)]);
    assert!(matches!(world.commit(t), Err(CommitError::Conflict(_))));
    world.commit(same).unwrap();
}

#[test]
fn a_registered_function_makes_one_value_out_of_two() {
    let merge = OnConflict::Merge("union".into());
    let (mut world, _) = world(vec![Namespace::new("ns/").on_conflict(merge)]);
    meet(&mut world, [json!([1]), json!([1, 2]), json!([1, 3])]).unwrap();
    assert_eq!(json(&world, "ns/key"), json!([1, 2, 3]));
    // Where it cannot, the transaction is run again; so is one that only reads there.
    let refused = meet(&mut world, [json!([1]), json!("text"), json!([1, 3])]);
    assert!(matches!(refused, Err(CommitError::Conflict(_))), "{refused:?}");
    let mut t = world.begin();
    t.get::<Value>("ns/key").unwrap();
    t.put("elsewhere", &1).unwrap();
    world.put_all(&[("ns/key", 1)]);
    assert!(matches!(world.commit(t), Err(CommitError::Conflict(_))));
}

#[test]
fn both_values_are_kept_where_the_namespace_says_so() {
    let (mut world, _) = world(vec![Namespace::new("ns/").on_conflict(OnConflict::KeepBoth)]);
    let version = meet(&mut world, [json!(1), json!(2), json!(3)]).unwrap();
    assert_eq!(json(&world, "ns/key"), json!(2));
    assert_eq!(json(&world, &format!("ns/key@{version}")), json!(3));
    assert_eq!(json(&world, "elsewhere"), json!(3));
}

#[test]
fn a_conflict_that_is_left_to_a_person_is_not_tried_again() {
    let (mut world, _) = world(vec![Namespace::new("ns/").on_conflict(OnConflict::Escalate)]);
    let refused = meet(&mut world, [json!(1), json!(2), json!(3)]).unwrap_err();
    assert!(matches!(refused, CommitError::Escalated(_)), "{refused:?}");
    assert!(!refused.is_retryable());
    assert_eq!((json(&world, "ns/key"), json(&world, "elsewhere")), (json!(2), Value::Null));
}
