//! A market of 10,000 traders who meet at random, in virtual time, while some of them crash.
//!
//! Goods wander to those to whom they are worth most. All money and goods are in the shared memory,
//! and a trade takes from both sides by escrow: it commits only if enough is left, it waits for
//! nobody, and it happens once or not at all. So whatever crashes, no coin and no good is lost or
//! made.
//!
//! `cargo run --release --example market -- [SEED] [TRADERS] [TICKS]`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]
#![expect(clippy::disallowed_methods, reason = "it tells how long that took in real time")]

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use guild::{RandomFaults, Seed, TaskError, Transaction, TransactionError};
use guild_sim::population::{Individual, Next, Population, PopulationError, Turn, View};
use serde::{Deserialize, Serialize};

/// Buys a good from whomever it meets, if it is worth more to it, at the price in the middle.
#[derive(Serialize, Deserialize)]
struct Trader {
    /// What one good is worth to it, in coins.
    value: i64,
    bought: u32,
    refused: u32,
}

impl Individual for Trader {
    async fn step(&mut self, turn: &mut Turn<'_, Self>) -> Result<Next, TaskError> {
        let own = turn.id().0;
        let traders = turn.population();
        let other = turn.draws().below(traders.into()) as u32;
        let memory = turn.memory();
        let theirs: i64 = memory.get(key("value", other))?.unwrap_or(i64::MAX);
        if other == own || self.value <= theirs {
            return Ok(Next::Tick);
        }
        let price = (self.value + theirs) / 2;
        match trade(memory, own, other, price) {
            Ok(()) => self.bought += 1,
            // Too poor, or sold out; whoever was faster may have made it so.
            Err(TransactionError::BelowFloor { .. }) => self.refused += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(Next::Tick)
    }
}

/// Moves a good one way and its price the other way.
fn trade(
    memory: &mut Transaction,
    buyer: u32,
    seller: u32,
    price: i64,
) -> Result<(), TransactionError> {
    memory.add_at_least(key("goods", seller), -1, 0)?;
    if let Err(refused) = memory.add_at_least(key("coins", buyer), -price, 0) {
        memory.add(key("goods", seller), 1)?;
        return Err(refused);
    }
    memory.add(key("coins", seller), price)?;
    memory.add(key("goods", buyer), 1)?;
    memory.add("trades", 1)
}

/// Keys sort as the traders do.
fn key(of: &str, trader: u32) -> String {
    format!("{of}/{trader:06}")
}

/// What all goods are worth to those who have them.
fn welfare(view: &View<'_, Trader>) -> Result<f64, PopulationError> {
    let goods = view.values::<i64>("goods/")?;
    let traders = view.individuals()?.values();
    Ok(traders.zip(&goods).map(|(trader, (_, goods))| (trader.value * goods) as f64).sum())
}

/// How unequal coins are spread: 0 when all have the same, 1 when one has all (Gini, 1912).
fn inequality(view: &View<'_, Trader>) -> Result<f64, PopulationError> {
    let mut coins: Vec<f64> =
        view.values::<f64>("coins/")?.into_iter().map(|(_, coins)| coins).collect();
    coins.sort_by(f64::total_cmp);
    let (count, sum) = (coins.len() as f64, coins.iter().sum::<f64>());
    let weighted: f64 = (1..).zip(&coins).map(|(rank, coins)| f64::from(rank) * coins).sum();
    Ok(2.0 * weighted / (count * sum) - (count + 1.0) / count)
}

fn argument<T: std::str::FromStr>(place: usize, default: T) -> anyhow::Result<T> {
    match std::env::args().nth(place) {
        None => Ok(default),
        Some(text) => text.parse().ok().with_context(|| format!("`{text}` is no number")),
    }
}

const COINS: i64 = 1_000;
const GOODS: i64 = 5;

fn main() -> anyhow::Result<()> {
    let (seed, traders, ticks) = (argument(1, 7)?, argument(2, 10_000)?, argument(3, 6)?);
    let started = Instant::now();
    let mut market = Population::with_seed(seed)
        .name("market")
        .individuals(traders, |_, draws| Trader {
            value: 1 + draws.below(100) as i64,
            bought: 0,
            refused: 0,
        })
        .share_each(|memory, id, trader: &Trader| {
            memory.put(key("value", id.0), &trader.value)?;
            memory.put(key("coins", id.0), &COINS)?;
            memory.put(key("goods", id.0), &GOODS)
        })
        .measure("coins", |view| view.sum("coins/"))
        .measure("goods", |view| view.sum("goods/"))
        .measure("trades", |view| view.number("trades"))
        .measure("refused", |view| {
            Ok(view.individuals()?.values().map(|trader| f64::from(trader.refused)).sum())
        })
        .measure("welfare", welfare)
        .measure("inequality", inequality)
        .faults(Arc::new(RandomFaults::parse("crash=0.02", Seed(seed))?))
        .start()?;

    let (coins, goods) = (f64::from(traders) * COINS as f64, f64::from(traders) * GOODS as f64);
    println!(
        "{:>4} {:>9} {:>8} {:>9} {:>11} {:>10}",
        "tick", "trades", "refused", "coins", "welfare", "inequality"
    );
    loop {
        let view = market.view();
        let row = market.series().rows().last().context("a row for each tick")?;
        let [found_coins, found_goods, trades, refused, welfare, inequality] = row.values[..]
        else {
            anyhow::bail!("a value for each measure");
        };
        println!(
            "{:>4} {trades:>9} {refused:>8} {found_coins:>9} {welfare:>11} {inequality:>10.3}",
            row.tick
        );
        ensure!(found_coins == coins && found_goods == goods, "something was lost or made");
        let owned = view.values::<i64>("coins/")?.into_iter().chain(view.values("goods/")?);
        ensure!(owned.into_iter().all(|(_, left)| left >= 0), "somebody owes something");
        if row.tick == ticks {
            break;
        }
        market.tick()?;
    }

    let welfare = market.series().column("welfare").context("welfare is measured")?;
    ensure!(welfare.is_sorted(), "a trade made both sides worse off");
    let (counts, now) = (market.world().counts(), market.world().now());
    println!(
        "{} events, {} crashes and nothing lost; log {:016x}; {} s of the model in {:.1} s",
        counts.events,
        counts.crashes,
        market.world().log_hash(),
        now.0 / 1_000_000,
        started.elapsed().as_secs_f64(),
    );
    Ok(())
}
