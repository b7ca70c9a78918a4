//! An actor of plain actix that only counts, and the least that isolates its panics: a catch around
//! every poll.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use actix::dev::ContextFut;
use actix::{Actor, Addr, Context, Handler, Message};

/// Says when it begins, and counts the messages that it gets.
pub(crate) struct Bare<F> {
    count: u64,
    begun: F,
}

/// What it counts.
pub(crate) struct Ping;

impl Message for Ping {
    type Result = ();
}

impl<F: Fn() + Unpin + 'static> Actor for Bare<F> {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        (self.begun)();
    }
}

impl<F: Fn() + Unpin + 'static> Handler<Ping> for Bare<F> {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Context<Self>) {
        self.count = self.count.wrapping_add(1);
    }
}

/// Polls an actor as a guard does: under a catch.
struct Caught<A: Actor<Context = Context<A>>>(ContextFut<A, Context<A>>);

impl<A: Actor<Context = Context<A>>> Future for Caught<A> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<()> {
        catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))).expect("it never panics")
    }
}

/// Spawns an actor as actix does.
pub(crate) fn bare<F: Fn() + Unpin + 'static>(begun: F) -> Addr<Bare<F>> {
    Bare { count: 0, begun }.start()
}

/// Spawns an actor whose polls are caught.
pub(crate) fn caught<F: Fn() + Unpin + 'static>(begun: F) -> Addr<Bare<F>> {
    let cell = Context::new().into_future(Bare { count: 0, begun });
    let address = cell.address();
    actix_rt::spawn(Caught(cell));
    address
}
