//! The shared memory as tasks and outsiders use it, in a running guild.

#[expect(dead_code, reason = "these tests use a part of what the tests share")]
mod common;

use common::Acts;
use guild::{Drain, Guild, Outcome, RetryPolicy, Task, TransactError, TransactionError};
use serde_json::json;

#[test]
fn a_stock_is_sold_out_exactly_and_the_rest_is_told_so() {
    let guild = Guild::builder()
        .role("buyer", 20, || {
            Acts(async |order, task: &mut guild::TaskContext| {
                let memory = task.memory();
                match memory.add_at_least("stock", -1, 0) {
                    Ok(()) => memory.append("sold", &order, 100)?,
                    Err(TransactionError::BelowFloor { .. }) => memory.add("declined", 1)?,
                    Err(error) => return Err(error.into()),
                }
                Ok(order)
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let (memory, policy) = (guild.memory(), RetryPolicy::immediately(1));
        memory.transact(&policy, |memory| memory.put("stock", &7)).await.unwrap();
        let mut graph = guild.graph("sale");
        for number in 0..20 {
            graph.add(Task::new(format!("order-{number}"), "buyer").input(&number));
        }

        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();

        assert_eq!(report.outcome(), Outcome::Completed);
        let books = memory.snapshot();
        assert_eq!(books.value::<i64>("stock").unwrap(), Some(0));
        assert_eq!(books.value::<Vec<u32>>("sold").unwrap().unwrap().len(), 7);
        assert_eq!(books.value::<i64>("declined").unwrap(), Some(13));

        let refused = memory.transact(&policy, |memory| memory.add_at_least("stock", -1, 0)).await;
        let Err(TransactError::GivenUp(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(
            error.to_string(),
            "memory key `stock` holds 0: adding -1 would leave less than 0"
        );
        guild.shutdown(Drain::Now).await.unwrap();
    });
}

#[test]
fn a_task_that_passes_the_refusal_on_fails_as_often_as_its_policy_says() {
    let guild = Guild::builder()
        .role("buyer", 1, || {
            Acts(async |_, task: &mut guild::TaskContext| {
                task.memory().add_at_least("stock", -1, 0)?;
                Ok(json!(null))
            })
        })
        .validate(true)
        .start()
        .unwrap();
    guild::block_on(async {
        let mut graph = guild.graph("sale");
        graph.add(Task::new("order", "buyer").retry(RetryPolicy::immediately(3)));
        let report = guild.submit(graph.build().unwrap()).await.unwrap().wait().await.unwrap();
        assert_eq!(report.outcome(), Outcome::Failed);
        assert_eq!(guild.stats().attempts, 3);
        assert!(guild.incidents()[0].message.contains("`stock` holds 0"));
        guild.shutdown(Drain::Now).await.unwrap();
    });
}
