//! Agents panic at every third attempt and hang now and then: the work is done all the same, once.
//!
//! `cargo run --example crash_and_restart`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guild::{
    Agent, Drain, Guild, Outcome, RestartPolicy, RetryPolicy, Task, TaskContext, TaskError,
};

struct Flaky {
    attempts: Arc<AtomicU32>,
}

impl Agent for Flaky {
    type Input = u64;
    type Output = u64;

    async fn perform(&mut self, number: u64, task: &mut TaskContext) -> Result<u64, TaskError> {
        // Buffered: it is committed with the completion of this attempt, or never.
        task.memory().add("sum", i64::try_from(number).map_err(TaskError::fatal)?)?;
        match self.attempts.fetch_add(1, Ordering::Relaxed) % 20 {
            n if n % 3 == 2 => panic!("attempt {n} went wrong"),
            19 => std::future::pending().await,
            _ => Ok(number * number),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&attempts);
    let guild = Guild::builder()
        .role("flaky", 50, move || Flaky { attempts: Arc::clone(&counted) })
        .restart(RestartPolicy { intensity: 1_000, ..RestartPolicy::default() })
        .start()?;

    let mut graph = guild.graph("squares");
    for number in 1..=1_000_u64 {
        let task = Task::new(format!("square-{number}"), "flaky")
            .input(&number)
            .timeout(Duration::from_millis(200))
            .retry(RetryPolicy::immediately(50));
        graph.add(task);
    }
    let graph = graph.build()?;

    guild::block_on(async {
        let report = guild.submit(graph).await?.wait().await?;
        let stats = guild.stats();
        let sum = guild.memory().snapshot().value::<i64>("sum")?;
        println!(
            "{} tasks completed in {} attempts; {} agents crashed and {} incidents say why",
            report.tally().completed,
            stats.attempts,
            stats.crashes,
            stats.incidents,
        );
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(report.output::<u64>("square-1000")?, 1_000_000);
        // Every attempt added to the sum; only the one that completed each task counted.
        assert_eq!(sum, Some(500_500));
        assert!(stats.crashes > 300);
        guild.shutdown(Drain::Now).await?;
        Ok(())
    })
}
