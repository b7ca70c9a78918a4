//! The root of the tree: ends the guild in order.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use actix_rt::{Arbiter, System};
use tokio::sync::oneshot;

use crate::context::Surroundings;
use crate::events::EventLog;
use crate::guild::{Drain, ShutdownReport};
use crate::mailbox::{Attend, Outlet, recycled};
use crate::message::{ControllerMessage, Left, MemoryMessage, SchedulerMessage, SupervisorMessage};
use crate::run::{RunBoard, RunError};

/// The root actor.
pub(crate) struct Controller {
    inbox: Outlet<ControllerMessage>,
    links: Links,
    /// Whether the thread and its system were started for this guild alone.
    owns_system: bool,
    batch: Vec<ControllerMessage>,
}

/// Whom the controller can reach.
#[derive(Clone)]
pub(crate) struct Links {
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) board: RunBoard,
    pub(crate) events: EventLog,
}

impl Controller {
    /// Returns the controller of these actors.
    pub(crate) fn new(inbox: Outlet<ControllerMessage>, links: Links, owns_system: bool) -> Self {
        Self { inbox, links, owns_system, batch: Vec::new() }
    }

    fn shutdown(&mut self, drain: Drain, reply: oneshot::Sender<Result<ShutdownReport, String>>) {
        let links = self.links.clone();
        let owns_system = self.owns_system;
        actix_rt::spawn(async move {
            let result = end_in_order(&links, drain).await;
            links.board.close(RunError::ShutDown);
            links.events.close();
            if reply.send(result).is_err() {
                tracing::debug!("nobody waits for the shutdown any more");
            }
            if owns_system {
                System::current().stop();
            }
        });
    }
}

/// Ends the guild in reverse order of its start: scheduler, agents, memory.
async fn end_in_order(links: &Links, drain: Drain) -> Result<ShutdownReport, String> {
    let scheduler = &links.surroundings.scheduler;
    if let Drain::Until(limit) = drain {
        let (idle, drained) = oneshot::channel();
        scheduler.push(SchedulerMessage::Drain { idle });
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::info!("drain deadline passed with work under way");
        }
    }
    let (halted, in_flight) = oneshot::channel();
    scheduler.push(SchedulerMessage::Halt { halted });
    // A scheduler that has panicked answers nobody; its work is under way no more.
    let attempts_dropped = answer(in_flight).await.unwrap_or(0);
    let (stopped, all_stopped) = oneshot::channel();
    links.surroundings.supervisor.push(SupervisorMessage::Stop { stopped });
    // It answers in any case: every agent has a deadline, and a supervisor that has ended drops this.
    let Left { agents: agents_left, threads } = all_stopped.await.unwrap_or_default();
    for arbiter in threads {
        arbiter.stop();
        join(arbiter).await;
    }
    let (reply, closed) = oneshot::channel();
    links.surroundings.memory.push(MemoryMessage::Close { reply });
    match closed.await {
        Ok(Ok(())) => Ok(ShutdownReport { attempts_dropped, agents_left }),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err("the memory actor has ended before the store was closed".to_owned()),
    }
}

async fn answer<T>(receiver: oneshot::Receiver<T>) -> Option<T> {
    tokio::time::timeout(ANSWER_TIME_MAX, receiver).await.ok()?.ok()
}

/// Waits for an arbiter's thread, but not for one that an agent blocks for ever.
async fn join(arbiter: Arbiter) {
    let (done, joined) = oneshot::channel();
    std::thread::spawn(move || {
        if arbiter.join().is_err() {
            tracing::warn!("an arbiter ended with a panic");
        }
        done.send(()).ok()
    });
    if answer(joined).await.is_none() {
        tracing::warn!("an agent blocks its arbiter; its thread is left behind");
    }
}

/// How long an actor may take to answer during shutdown.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

impl Actor for Controller {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.inbox.attend::<Self>(context);
    }
}

impl Supervised for Controller {}

impl Attend for Controller {
    fn turn(&mut self, _: &mut Context<Self>) {
        let mut batch = std::mem::take(&mut self.batch);
        self.inbox.take(&mut batch);
        for message in batch.drain(..) {
            match message {
                ControllerMessage::Shutdown { drain, reply } => self.shutdown(drain, reply),
            }
        }
        self.batch = recycled(batch);
    }
}
