//! The smallest guild: ten agents, one task, one answer.
//!
//! `cargo run --example hello`

#![expect(clippy::print_stdout, reason = "an example shows what it did")]

use guild::{Agent, Drain, Guild, Task, TaskContext, TaskError};

struct Greeter;

impl Agent for Greeter {
    type Input = String;
    type Output = String;

    async fn perform(&mut self, name: String, _: &mut TaskContext) -> Result<String, TaskError> {
        Ok(format!("hello, {name}"))
    }
}

fn main() -> anyhow::Result<()> {
    let guild = Guild::builder().role("greeter", 10, || Greeter).start()?;
    let mut graph = guild.graph("greetings");
    graph.add(Task::new("world", "greeter").input("world"));
    let graph = graph.build()?;

    guild::block_on(async {
        let report = guild.submit(graph).await?.wait().await?;
        let greeting: String = report.output("world")?;
        println!("{greeting}");
        assert_eq!(greeting, "hello, world");
        guild.shutdown(Drain::Now).await?;
        Ok(())
    })
}
