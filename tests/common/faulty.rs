//! Agents that go wrong, and guilds that bear it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guild::{Agent, Guild, RestartPolicy, RunReport, Task, TaskContext, TaskError};
use serde_json::Value;

/// Restarts whoever crashes, however often.
pub(crate) fn patient() -> RestartPolicy {
    RestartPolicy { intensity: 1_000_000, ..RestartPolicy::default() }
}

/// Submits tasks as one run and waits for its end.
pub(crate) async fn run(guild: &Guild, tasks: impl IntoIterator<Item = Task>) -> Arc<RunReport> {
    let mut graph = guild.graph("run");
    for task in tasks {
        graph.add(task);
    }
    let graph = graph.build().expect("the graph is sound");
    let run = guild.submit(graph).await.expect("the guild takes it");
    run.wait().await.expect("the guild lives")
}

/// Panics while it is dropped, after a panic while it performed a first attempt.
#[derive(Default)]
pub(crate) struct Bomb {
    is_armed: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(!self.is_armed, "panic in drop");
    }
}

impl Agent for Bomb {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, task: &mut TaskContext) -> Result<Value, TaskError> {
        self.is_armed = true;
        assert!(task.attempt() > 1, "panic in perform");
        self.is_armed = false;
        Ok(input)
    }
}

/// Never comes back from the first task that any of its kind is given.
pub(crate) struct HangsOnce(Arc<AtomicBool>);

impl HangsOnce {
    /// Returns a factory of agents, of which one hangs.
    pub(crate) fn factory() -> impl Fn() -> Self + Send + Sync + 'static {
        let hung = Arc::new(AtomicBool::new(false));
        move || Self(Arc::clone(&hung))
    }
}

impl Agent for HangsOnce {
    type Input = Value;
    type Output = Value;

    async fn perform(&mut self, input: Value, _: &mut TaskContext) -> Result<Value, TaskError> {
        if !self.0.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(input)
    }
}
