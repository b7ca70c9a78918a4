//! kameo: children of a supervisor that restarts them without a limit.

use std::time::Duration;

use kameo::actor::{Actor, ActorRef, Spawn};
use kameo::error::Infallible;
use kameo::message::{Context, Message};

use crate::measure::{self, Row};

#[derive(Clone)]
struct Worker;

struct Ping;
struct Crash;

impl Actor for Worker {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(worker: Self, own: ActorRef<Self>) -> Result<Self, Infallible> {
        measure::lives();
        if measure::has_to_crash() {
            own.tell(Crash).try_send().expect("there is room");
        }
        Ok(worker)
    }
}

impl Message<Ping> for Worker {
    type Reply = ();

    async fn handle(&mut self, _: Ping, _: &mut Context<Self, ()>) {}
}

impl Message<Crash> for Worker {
    type Reply = ();

    async fn handle(&mut self, _: Crash, _: &mut Context<Self, ()>) {
        measure::crash()
    }
}

struct Root;

impl Actor for Root {
    type Args = ();
    type Error = Infallible;

    async fn on_start((): (), _: ActorRef<Self>) -> Result<Self, Infallible> {
        Ok(Self)
    }
}

/// Measures kameo.
pub(crate) fn measure() -> Row {
    let mut row = Row::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let spawned =
            async |count| -> Vec<_> { (0..count).map(|_| Worker::spawn(Worker)).collect() };
        let actors = measure::spawned(&mut row, spawned).await;
        let send = |place: usize| actors[place].tell(Ping).try_send().expect("there is room");
        measure::sent(&mut row, send).await;
        drop(actors);
        let begin = async |count: u64| {
            let root = Root::spawn(());
            let mut workers = Vec::new();
            for _ in 0..count {
                let worker = Worker::supervise(&root, Worker);
                let worker = worker.restart_limit(u32::MAX, Duration::from_secs(1));
                workers.push(worker.spawn().await);
            }
            (root, workers)
        };
        measure::crashed(&mut row, begin).await;
    });
    row
}
