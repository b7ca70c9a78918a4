//! A thousand agents move money from fifty customers to ten shops at once. Each customer has two
//! accounts and may overdraw one while the other covers it, so a payment reads both and writes one: two
//! of them, one from each account, are what write skew is made of. The books balance all the same,
//! because what a payment has read is looked at once more when it commits.
//!
//! `cargo run --example shared_memory`
//! `cargo run --example shared_memory -- --snapshot-isolation` lets go of that: customers are overdrawn.

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::time::Duration;

use guild::{
    Agent, Drain, Guild, Isolation, KeyRange, Outcome, RetryPolicy, Task, TaskContext, TaskError,
};
use serde::{Deserialize, Serialize};

const CUSTOMERS: usize = 50;
const ACCOUNTS: [&str; 2] = ["checking", "savings"];
const SHOPS: usize = 10;
const OPENING_BALANCE: i64 = 100;
const ORDERS: usize = 4_000;

#[derive(Serialize, Deserialize)]
struct Order {
    from: usize,
    account: usize,
    amount: i64,
    shop: usize,
}

struct Teller(Isolation);

impl Agent for Teller {
    type Input = Order;
    type Output = bool;

    async fn perform(&mut self, order: Order, task: &mut TaskContext) -> Result<bool, TaskError> {
        task.memory().set_isolation(self.0);
        let balances = task.memory().scan::<i64>(of_customer(order.from), 10)?;
        let covered: i64 = balances.iter().map(|(_, balance)| balance).sum();
        // Long enough for another teller to think the same about the other account.
        task.sleep(Duration::from_millis(1)).await;
        if covered < order.amount {
            return Ok(false);
        }
        let (key, balance) = &balances[order.account];
        let memory = task.memory();
        memory.put(key, &(balance - order.amount))?;
        // A deposit reads nothing, so deposits never conflict with each other.
        memory.add(format!("shops/{}", order.shop), order.amount)?;
        memory.add("payments", 1)?;
        Ok(true)
    }
}

fn account(customer: usize, number: usize) -> String {
    format!("customers/{customer}/{}", ACCOUNTS[number])
}

fn of_customer(customer: usize) -> KeyRange {
    KeyRange::prefix(format!("customers/{customer}/"))
}

fn main() -> anyhow::Result<()> {
    let tempted = std::env::args().any(|argument| argument == "--snapshot-isolation");
    let isolation = if tempted { Isolation::Snapshot } else { Isolation::Serializable };
    let guild = Guild::builder().role("teller", 1_000, move || Teller(isolation)).start()?;
    let memory = guild.memory();
    // A plain thread without a runtime may use the memory too.
    memory.transact_blocking(&RetryPolicy::default(), |memory| {
        let mut accounts = (0..CUSTOMERS).flat_map(|customer| [(customer, 0), (customer, 1)]);
        accounts.try_for_each(|(customer, number)| {
            memory.put(account(customer, number), &OPENING_BALANCE)
        })
    })?;

    let mut graph = guild.graph("payments");
    for number in 0..ORDERS {
        let (from, shop) = (number % CUSTOMERS, number % SHOPS);
        let (account, amount) = (number / CUSTOMERS % 2, 20 + (number % 90) as i64);
        let order = Order { from, account, amount, shop };
        graph.add(Task::new(format!("payment-{number}"), "teller").input(&order));
    }
    let graph = graph.build()?;
    guild::block_on(async {
        let report = guild.submit(graph).await?.wait().await?;

        let books = memory.snapshot();
        let in_shops = (0..SHOPS).map(|number| books.value::<i64>(format!("shops/{number}")));
        let in_shops = in_shops.map(|sum| sum.map(Option::unwrap_or_default));
        let (mut total, mut overdrawn) = (in_shops.sum::<Result<i64, _>>()?, 0);
        for customer in 0..CUSTOMERS {
            let balance = (0..ACCOUNTS.len()).try_fold(0, |sum, number| {
                books.value::<i64>(account(customer, number)).map(|one| sum + one.unwrap_or(0))
            })?;
            total += balance;
            overdrawn += usize::from(balance < 0);
        }
        let payments: i64 = books.value("payments")?.unwrap_or(0);
        println!(
            "{payments} of {ORDERS} orders were covered; {} attempts, the rest met conflicts; \
             total {total}, {overdrawn} customers overdrawn",
            guild.stats().attempts,
        );
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(total, OPENING_BALANCE * (CUSTOMERS * ACCOUNTS.len()) as i64);
        // Who may not lose sight of what it has read cannot be tempted, and who may, is.
        assert_eq!(overdrawn > 0, tempted, "nobody owes more than both accounts hold");
        guild.shutdown(Drain::Now).await?;
        Ok(())
    })
}
