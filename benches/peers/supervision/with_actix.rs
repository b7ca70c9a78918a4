//! actix without supervision, and with what isolates a panic: a catch around every poll.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use actix::dev::ContextFut;
use actix::{Actor, Addr, Context, Handler, Message};

use crate::measure::{self, Row};

struct Bare(u64);

struct Ping;

impl Message for Ping {
    type Result = ();
}

impl Actor for Bare {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        measure::lives();
    }
}

impl Handler<Ping> for Bare {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {
        self.0 = self.0.wrapping_add(1);
    }
}

/// Polls an actor under a catch.
struct Caught(ContextFut<Bare, Context<Bare>>);

impl Future for Caught {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<()> {
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))).expect("it never panics")
    }
}

/// Measures actix alone; it restarts nobody who panicked.
pub(crate) fn bare() -> Row {
    measure_with(|| Bare(0).start())
}

/// Measures actix with a catch around every poll, and nobody who restarts.
pub(crate) fn caught() -> Row {
    measure_with(|| {
        let cell = Context::new().into_future(Bare(0));
        let address = cell.address();
        actix_rt::spawn(Caught(cell));
        address
    })
}

fn measure_with(spawn: impl Fn() -> Addr<Bare>) -> Row {
    let mut row = Row::default();
    actix_rt::System::new().block_on(async {
        let spawned = async |count| -> Vec<Addr<Bare>> { (0..count).map(|_| spawn()).collect() };
        let actors = measure::spawned(&mut row, spawned).await;
        let send = |place: usize| actors[place].try_send(Ping).expect("there is room");
        measure::sent(&mut row, send).await;
    });
    row
}
