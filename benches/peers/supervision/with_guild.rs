//! Guild on one thread: agents whose crashes are incidents, and whose tasks go on elsewhere.

use std::time::Duration;

use guild::{
    Agent, Drain, Guild, Limits, RestartPolicy, RetryPolicy, Task, TaskContext, TaskError,
};

use crate::measure::{self, Row};

struct Worker;

impl Worker {
    fn new() -> Self {
        measure::lives();
        Self
    }
}

impl Agent for Worker {
    type Input = ();
    type Output = ();

    async fn perform(&mut self, (): (), _: &mut TaskContext) -> Result<(), TaskError> {
        if measure::has_to_crash() {
            measure::crash();
        }
        Ok(())
    }
}

fn guild(agents: u64) -> Guild {
    let agents = u32::try_from(agents).expect("not that many");
    let mut limits = Limits::default();
    limits.kills_max = u32::MAX;
    let intensity = u32::MAX;
    let (backoff_max, jitter) = (Duration::ZERO, 0.0);
    let restart = RestartPolicy { intensity, backoff_max, jitter, ..RestartPolicy::default() };
    Guild::builder()
        .role("worker", agents, Worker::new)
        .agent_threads(0)
        .restart(restart)
        .limits(limits)
        .start()
        .expect("it starts")
}

/// Measures Guild; its actors take assignments, not messages.
pub(crate) fn measure() -> Row {
    let mut row = Row::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let idle = measure::spawned(&mut row, async |count| guild(count)).await;
        idle.shutdown(Drain::Now).await.expect("it ends");
        measure::crashed(&mut row, async |agents| {
            let guild = guild(agents);
            let mut graph = guild.graph("storm");
            for number in 0..agents {
                let number = u32::try_from(number).expect("not that many");
                let task = Task::numbered(number, "worker").input(&());
                graph.add(task.retry(RetryPolicy::immediately(u32::MAX)));
            }
            let run = guild.submit(graph.build().expect("it is sound")).await.expect("it is taken");
            run.wait().await.expect("it ends");
            guild
        })
        .await;
    });
    row
}
