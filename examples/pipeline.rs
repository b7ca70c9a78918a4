//! Fan-out and fan-in: one task finds the work, as many tasks as there is work do it side by side,
//! and one sees all their results.
//!
//! `cargo run --example pipeline`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use guild::{Agent, Drain, Expr, Guild, Outcome, Task, TaskContext, TaskError};

/// Splits a text into lines and spawns a task for each; they are committed with its own output.
struct Splitter;

impl Agent for Splitter {
    type Input = String;
    type Output = usize;

    async fn perform(&mut self, text: String, task: &mut TaskContext) -> Result<usize, TaskError> {
        for (number, line) in (0..).zip(text.lines()) {
            task.spawn(Task::numbered(number, "counter").input(line));
        }
        Ok(text.lines().count())
    }
}

/// Counts the words of a line.
struct Counter;

impl Agent for Counter {
    type Input = String;
    type Output = usize;

    async fn perform(&mut self, line: String, _: &mut TaskContext) -> Result<usize, TaskError> {
        Ok(line.split_whitespace().count())
    }
}

/// Adds up what all counters found.
struct Adder;

impl Agent for Adder {
    type Input = Vec<usize>;
    type Output = usize;

    async fn perform(
        &mut self,
        counts: Vec<usize>,
        _: &mut TaskContext,
    ) -> Result<usize, TaskError> {
        Ok(counts.iter().sum())
    }
}

fn main() -> anyhow::Result<()> {
    let guild = Guild::builder()
        .role("splitter", 1, || Splitter)
        .role("counter", 8, || Counter)
        .role("adder", 1, || Adder)
        .start()?;
    let text = "the quick brown fox\njumps over\nthe lazy dog\n".repeat(1_000);

    let mut graph = guild.graph("word count");
    let split = graph.add(Task::new("split", "splitter").input(&text));
    // Waits for `split` and for everything that `split` spawned.
    graph.add(Task::new("total", "adder").input_expr(Expr::Spawned(split.into())));
    let graph = graph.build()?;

    guild::block_on(async {
        let report = guild.submit(graph).await?.wait().await?;
        let total: usize = report.output("total")?;
        println!("{total} words by {} tasks", report.tally().completed);
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(total, 9_000);
        assert_eq!(report.tally().completed, 3_002);
        guild.shutdown(Drain::Now).await?;
        Ok(())
    })
}
