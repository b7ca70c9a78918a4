//! A hundred agents move money between ten accounts at once. Every transfer reads two balances and
//! writes both; the books balance because each commits only if what it read still holds.
//!
//! `cargo run --example shared_memory`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use guild::{Agent, Drain, Guild, Outcome, RetryPolicy, Task, TaskContext, TaskError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Transfer {
    from: usize,
    to: usize,
    amount: i64,
}

struct Teller;

impl Agent for Teller {
    type Input = Transfer;
    type Output = bool;

    async fn perform(
        &mut self,
        order: Transfer,
        task: &mut TaskContext,
    ) -> Result<bool, TaskError> {
        let (from, to) = (account(order.from), account(order.to));
        let memory = task.memory();
        let balance: i64 = memory.get(&from)?.unwrap_or(0);
        let other: i64 = memory.get(&to)?.unwrap_or(0);
        if balance < order.amount {
            return Ok(false);
        }
        memory.put(&from, &(balance - order.amount))?;
        memory.put(&to, &(other + order.amount))?;
        memory.add("transfers", 1)?;
        Ok(true)
    }
}

fn account(number: usize) -> String {
    format!("accounts/{number}")
}

const ACCOUNTS: usize = 10;
const OPENING_BALANCE: i64 = 1_000;

fn main() -> anyhow::Result<()> {
    let guild = Guild::builder().role("teller", 100, || Teller).start()?;

    guild::block_on(async {
        let memory = guild.memory();
        memory
            .transact(&RetryPolicy::default(), |memory| {
                (0..ACCOUNTS).try_for_each(|number| memory.put(account(number), &OPENING_BALANCE))
            })
            .await?;

        let mut graph = guild.graph("transfers");
        for number in 0..2_000 {
            let (from, to) = (number % ACCOUNTS, number * 7 % ACCOUNTS);
            if from != to {
                let order = Transfer { from, to, amount: 1 + (number % 90) as i64 };
                graph.add(Task::new(format!("transfer-{number}"), "teller").input(&order));
            }
        }
        let orders = graph.len();
        let report = guild.submit(graph.build()?).await?.wait().await?;

        let books = memory.snapshot();
        let mut total = 0;
        for number in 0..ACCOUNTS {
            let balance: i64 = books.value(account(number))?.unwrap_or(0);
            assert!(balance >= 0, "account {number} is overdrawn");
            total += balance;
        }
        let stats = guild.stats();
        println!(
            "{orders} transfers took {} attempts, the rest met conflicts; total {total}",
            stats.attempts,
        );
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(total, OPENING_BALANCE * ACCOUNTS as i64);
        guild.shutdown(Drain::Now).await?;
        Ok(())
    })
}
