//! ractor: a supervisor that starts another child for each that failed, as its users write it.

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::measure::{self, Row};

struct Worker;

enum Order {
    Ping,
    Crash,
}

impl Actor for Worker {
    type Msg = Order;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Order>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn post_start(
        &self,
        own: ActorRef<Order>,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        measure::lives();
        if measure::has_to_crash() {
            own.cast(Order::Crash)?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<Order>,
        order: Order,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        match order {
            Order::Ping => Ok(()),
            Order::Crash => measure::crash(),
        }
    }
}

struct Root;

impl Actor for Root {
    type Msg = ();
    type State = ();
    type Arguments = u64;

    async fn pre_start(&self, own: ActorRef<()>, count: u64) -> Result<(), ActorProcessingErr> {
        for _ in 0..count {
            Actor::spawn_linked(None, Worker, (), own.get_cell()).await?;
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        own: ActorRef<()>,
        event: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(..) = event {
            Actor::spawn_linked(None, Worker, (), own.get_cell()).await?;
        }
        Ok(())
    }
}

/// Measures ractor.
pub(crate) fn measure() -> Row {
    let mut row = Row::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let spawned = async |count| {
            let mut actors = Vec::new();
            for _ in 0..count {
                let (actor, _) = Actor::spawn(None, Worker, ()).await.expect("it starts");
                actors.push(actor);
            }
            actors
        };
        let actors = measure::spawned(&mut row, spawned).await;
        let send = |place: usize| actors[place].cast(Order::Ping).expect("it lives");
        measure::sent(&mut row, send).await;
        let begin = async |count| Actor::spawn(None, Root, count).await.expect("it starts").0;
        measure::crashed(&mut row, begin).await;
    });
    row
}
