//! Limits, additions and typed values: what breaks a rule is refused with the rule, and changes nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests; a failure is a failed test")]

mod common;

use common::{World, bindings, completion, graph, output, task};
use guild_core::graph::Bindings;
use guild_core::limits::Limits;
use guild_core::time::Timestamp;
use guild_memory::store::RamStore;
use guild_memory::{
    CommitError, Durability, Memory, OpenError, SubmitError, TransactionError, Violation,
};

fn violation(result: Result<guild_core::id::CommitVersion, CommitError>) -> Violation {
    match result {
        Err(CommitError::Invalid(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn adding_to_something_else_than_an_integer_is_refused_by_key() {
    let mut world = World::volatile();
    let mut transaction = world.begin();
    for (key, text) in [("text", "\"1\""), ("float", "1.5"), ("wide", "9223372036854775808")] {
        transaction.put_bytes(key, text);
    }
    world.commit(transaction).unwrap();
    for key in ["text", "float", "wide"] {
        let mut transaction = world.begin();
        transaction.add(key, 1).unwrap();
        transaction.put("other", &1).unwrap();
        let refused = violation(world.commit(transaction));
        assert!(matches!(refused, Violation::Merge(TransactionError::WrongType { .. })));
        assert!(refused.to_string().contains(key), "{refused}");
    }
    assert_eq!(world.value("other"), None);
}

#[test]
fn a_sum_that_does_not_fit_is_refused_and_only_the_final_sum_counts() {
    let mut world = World::volatile();
    world.put_all(&[("sum", i64::MAX - 1)]);
    let mut transaction = world.begin();
    transaction.add("sum", 2).unwrap();
    let expected = TransactionError::Overflow { key: "sum".into() };
    assert_eq!(transaction.get::<i64>("sum"), Err(expected.clone()));
    assert_eq!(violation(world.commit(transaction)), Violation::Merge(expected));

    let mut transaction = world.begin();
    transaction.add("sum", i64::MAX).unwrap();
    transaction.add("sum", i64::MAX).unwrap();
    transaction.add("sum", -i64::MAX).unwrap();
    transaction.add("sum", -i64::MAX).unwrap();
    world.commit(transaction).unwrap();
    assert_eq!(world.value("sum"), Some(i64::MAX - 1));
}

#[test]
fn changes_of_one_key_compose_in_order() {
    let mut world = World::volatile();
    world.put_all(&[("a", 5), ("b", 5), ("c", 5)]);
    let mut transaction = world.begin();
    transaction.add("a", 1).unwrap();
    transaction.put("a", &100).unwrap();
    transaction.add("a", 1).unwrap();
    transaction.delete("b");
    transaction.add("b", 7).unwrap();
    transaction.add("c", 7).unwrap();
    transaction.delete("c");
    assert_eq!(transaction.get::<i64>("c").unwrap(), None);
    transaction.put("text", "x").unwrap();
    let refused = transaction.add("text", 1);
    assert!(matches!(refused, Err(TransactionError::WrongType { .. })), "{refused:?}");
    assert!(matches!(transaction.get::<i64>("text"), Err(TransactionError::Decode { .. })));
    world.commit(transaction).unwrap();
    assert_eq!((world.value("a"), world.value("b"), world.value("c")), (Some(101), Some(7), None));
}

#[test]
fn keys_values_and_transactions_have_limits() {
    let mut world = World::volatile();
    let limits = Limits::default();
    let put = |world: &mut World, key: String, bytes: usize| {
        let mut transaction = world.begin();
        transaction.put_bytes(key, vec![b'1'; bytes]);
        world.commit(transaction)
    };
    let (key_max, value_max) = (limits.key_bytes_max, limits.value_bytes_max);
    put(&mut world, "k".repeat(key_max), value_max).unwrap();
    let refused = violation(put(&mut world, "k".repeat(key_max + 1), 1));
    assert!(matches!(refused, Violation::KeyTooLong { .. }), "{refused:?}");
    let refused = violation(put(&mut world, "k".into(), value_max + 1));
    assert!(matches!(refused, Violation::ValueTooLarge { .. }), "{refused:?}");

    let mut many = world.begin();
    for number in 0..=limits.writes_per_transaction_max {
        many.put(number.to_string(), &0).unwrap();
    }
    let refused = violation(world.commit(many));
    assert!(matches!(refused, Violation::TooManyWrites { .. }), "{refused:?}");

    let mut large = world.begin();
    let inline_max = 64 << 10;
    for number in 0..=limits.transaction_bytes_max / inline_max {
        large.put_bytes(number.to_string(), vec![b'1'; inline_max]);
    }
    let refused = violation(world.commit(large));
    assert!(matches!(refused, Violation::TransactionTooLarge { .. }), "{refused:?}");
    assert_eq!(world.memory.snapshots().latest().len(), 1);
}

#[test]
fn runs_and_outputs_have_limits() {
    let mut limits = Limits::default();
    limits.tasks_per_run_max = 3;
    limits.payload_bytes_max = 10;
    limits.name_chars_max = 5;
    let (mut memory, _) = Memory::open(
        None,
        Durability::Memory,
        limits,
        guild_memory::Commits::OnThread(Box::new(|| {})),
    )
    .unwrap();
    let now = Timestamp(0);
    let mut submit = |name: &str, tasks, bindings| match memory.submit(
        now,
        name,
        graph(name, tasks),
        &bindings,
        0,
    ) {
        Err(SubmitError::Invalid(violation)) => Some(violation),
        Ok(_) => None,
        Err(other) => panic!("{other:?}"),
    };
    assert!(matches!(submit("run", 4, bindings()), Some(Violation::TooManyTasks { .. })));
    assert!(matches!(submit("too long", 1, bindings()), Some(Violation::NameTooLong { .. })));
    assert!(matches!(submit("run", 1, Bindings::default()), Some(Violation::Graph(_))));
    assert_eq!(submit("run", 2, bindings()), None);

    let token = guild_core::id::FencingToken(7);
    memory.grant(task(0, 0), token);
    let mut handed_in = completion(task(0, 0), token, Default::default());
    handed_in.output = output("much too long");
    let refused = violation(memory.complete(now, handed_in.clone()));
    assert!(matches!(refused, Violation::OutputTooLarge { .. }), "{refused:?}");
    handed_in.output = output("x");
    handed_in.spawned = Some(Box::new((graph("", 2), bindings())));
    let refused = violation(memory.complete(now, handed_in.clone()));
    assert!(matches!(refused, Violation::TooManyTasks { .. }), "{refused:?}");
    handed_in.spawned = Some(Box::new((graph("", 1), bindings())));
    memory.complete(now, handed_in).unwrap();
}

#[test]
fn a_value_limit_that_no_store_can_keep_is_refused_at_open() {
    let mut limits = Limits::default();
    limits.value_bytes_max = 2 << 30;
    let open = |store| {
        Memory::open(
            store,
            Durability::Disk,
            limits.clone(),
            guild_memory::Commits::OnThread(Box::new(|| {})),
        )
    };
    let refused = open(Some(Box::new(RamStore::new()))).map(|_| ());
    assert_eq!(refused, Err(OpenError::ValueLimit { found: 2 << 30, max: 1 << 30 }));
    open(None).unwrap();
}

#[test]
fn a_transaction_without_writes_always_commits_as_of_its_snapshot() {
    let mut world = World::volatile();
    world.put_all(&[("a", 1)]);
    let mut reader = world.begin();
    assert_eq!(reader.get::<i64>("a").unwrap(), Some(1));
    world.put_all(&[("a", 2)]);
    assert_eq!(world.commit(reader).unwrap().0, 1);
    let nothing = world.begin();
    assert_eq!(world.commit(nothing).unwrap().0, 2);
    assert_eq!(world.memory.snapshots().latest().version().0, 2);
}

#[test]
fn a_snapshot_shows_whole_turns_and_never_changes() {
    let mut world = World::volatile();
    world.put_all(&[("a", 1)]);
    let snapshot = world.memory.snapshots().latest();
    for value in 2..50 {
        let mut transaction = world.begin();
        transaction.put("a", &value).unwrap();
        let now = world.now();
        world.memory.transact(now, transaction.into_parts()).unwrap();
    }
    assert_eq!(world.value("a"), Some(1));
    world.memory.seal();
    assert_eq!(world.value("a"), Some(49));
    assert_eq!(snapshot.get(b"a").unwrap().value, "1");
    assert_eq!(snapshot.version().0, 1);
}
