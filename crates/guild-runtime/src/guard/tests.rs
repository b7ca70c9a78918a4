//! The facts about actix 0.13 that this file exists for, each as a regression test.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use actix::{Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::System;

use super::*;

#[derive(Clone, Default)]
struct Notes {
    handled: Rc<RefCell<Vec<u32>>>,
    started: Rc<Cell<u32>>,
    crashes: Rc<RefCell<Vec<String>>>,
}

/// An actor that can be told to panic in every place where an actor can.
struct Fragile {
    notes: Notes,
    panics_in_started: u32,
    panics_in_drop: bool,
}

#[derive(Clone, Copy)]
enum Order {
    Note(u32),
    Panic,
    PanicInWait,
    PanicInSpawned,
}

impl Message for Order {
    type Result = ();
}

impl Actor for Fragile {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.notes.started.set(self.notes.started.get() + 1);
        assert!(self.notes.started.get() > self.panics_in_started, "panic in started");
    }
}

impl Supervised for Fragile {}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.panics_in_drop, "panic in drop");
    }
}

impl Handler<Order> for Fragile {
    type Result = ();

    fn handle(&mut self, order: Order, context: &mut Context<Self>) {
        match order {
            Order::Note(number) => self.notes.handled.borrow_mut().push(number),
            Order::Panic => panic!("panic in a handler"),
            Order::PanicInWait => {
                context.wait(async { panic!("panic in a wait") }.into_actor(self));
            }
            Order::PanicInSpawned => {
                context.spawn(async { panic!("panic in a spawned future") }.into_actor(self));
            }
        }
    }
}

fn fragile(notes: &Notes) -> Fragile {
    Fragile { notes: notes.clone(), panics_in_started: 0, panics_in_drop: false }
}

fn guarded(actor: Fragile, verdict: Verdict) -> Addr<Fragile> {
    crate::panics::install_hook();
    let crashes = Rc::clone(&actor.notes.crashes);
    let cell = Context::new().into_future(actor);
    let address = cell.address();
    actix_rt::spawn(Guard::new(cell, move |report: PanicReport| {
        crashes.borrow_mut().push(report.message.into());
        Box::pin(std::future::ready(verdict)) as LocalBoxFuture<'static, Verdict>
    }));
    address
}

fn on_a_system(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn messages_queued_behind_a_panic_are_handled_behind_the_same_address() {
    on_a_system(async {
        for blow in [Order::Panic, Order::PanicInWait, Order::PanicInSpawned] {
            let notes = Notes::default();
            let address = guarded(fragile(&notes), Verdict::Restart);

            address.try_send(Order::Note(1)).unwrap();
            address.try_send(blow).unwrap();
            address.try_send(Order::Note(2)).unwrap();
            address.send(Order::Note(3)).await.unwrap();

            assert_eq!(*notes.handled.borrow(), [1, 2, 3]);
            tokio::task::yield_now().await;
            assert_eq!(notes.crashes.borrow().len(), 1);
        }
    });
}

#[test]
fn a_sender_that_waits_for_the_panicking_message_learns_that_it_is_lost() {
    on_a_system(async {
        let notes = Notes::default();
        let address = guarded(fragile(&notes), Verdict::Restart);

        assert!(address.send(Order::Panic).await.is_err());

        assert!(address.connected());
        assert_eq!(*notes.crashes.borrow(), ["panic in a handler"]);
    });
}

#[test]
fn an_actor_that_panics_in_started_is_started_again() {
    on_a_system(async {
        let notes = Notes::default();
        let mut actor = fragile(&notes);
        actor.panics_in_started = 2;
        let address = guarded(actor, Verdict::Restart);

        address.send(Order::Note(1)).await.unwrap();

        assert_eq!(notes.started.get(), 3);
        assert_eq!(*notes.crashes.borrow(), ["panic in started", "panic in started"]);
    });
}

#[test]
fn a_panicking_drop_neither_aborts_the_process_nor_harms_other_actors() {
    on_a_system(async {
        let (bystander_notes, notes) = (Notes::default(), Notes::default());
        let bystander = guarded(fragile(&bystander_notes), Verdict::Stop);
        let mut actor = fragile(&notes);
        actor.panics_in_drop = true;
        let address = guarded(actor, Verdict::Stop);

        assert!(address.send(Order::Panic).await.is_err());
        tokio::task::yield_now().await;

        assert!(!address.connected(), "the verdict was to stop");
        bystander.send(Order::Note(1)).await.unwrap();
    });
}

#[test]
fn without_the_guard_actix_loses_the_actor_and_its_queue() {
    // The reason for the guard; when this fails, actix has learned it and the guard can go.
    on_a_system(async {
        let notes = Notes::default();
        let cell = Context::new().into_future(fragile(&notes));
        let address = cell.address();
        let actor = actix_rt::spawn(cell);

        address.try_send(Order::Panic).unwrap();
        let queued = address.send(Order::Note(1)).await;

        assert!(queued.is_err());
        assert!(actor.await.unwrap_err().is_panic());
        assert!(notes.handled.borrow().is_empty());
    });
}
