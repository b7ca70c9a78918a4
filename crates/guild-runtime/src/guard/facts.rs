//! The table of what a panic does to an actor of actix 0.13, row by row: without a guard, under
//! actix's own supervisor, and under ours. When a row changes, actix has changed under us.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use actix::{
    ActorFutureExt, Addr, AsyncContext, AtomicResponse, Context, Handler, Message,
    ResponseActFuture, ResponseFuture, Supervisor, WrapFuture,
};
use actix_rt::System;

use super::*;

/// What happened to the actor.
#[derive(Clone, Default)]
struct Notes {
    handled: Rc<RefCell<Vec<u32>>>,
    started: Rc<Cell<u32>>,
    spawned_futures_dropped: Rc<Cell<u32>>,
}

struct Subject {
    notes: Notes,
    panics_in_started: bool,
}

impl Actor for Subject {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.notes.started.set(self.notes.started.get() + 1);
        assert!(!std::mem::take(&mut self.panics_in_started), "panic in started");
    }
}

impl Supervised for Subject {}

/// Declares a message and how its handler goes wrong.
macro_rules! blow {
    ($name:ident, $result:ty, |$actor:ident, $context:ident| $body:expr) => {
        struct $name;
        impl Message for $name {
            type Result = ();
        }
        impl Handler<$name> for Subject {
            type Result = $result;

            fn handle(&mut self, _: $name, $context: &mut Context<Self>) -> $result {
                let $actor = self;
                $body
            }
        }
    };
}

async fn goes_wrong() {
    tokio::task::yield_now().await;
    panic!("panic in a future");
}

blow!(InHandler, (), |_actor, _context| panic!("panic in a handler"));
blow!(InResponseFuture, ResponseFuture<()>, |_actor, _context| Box::pin(goes_wrong()));
blow!(InResponseActFuture, ResponseActFuture<Self, ()>, |actor, _context| Box::pin(
    goes_wrong().into_actor(actor).map(|(), _, _| ())
));
blow!(InAtomicResponse, AtomicResponse<Self, ()>, |actor, _context| AtomicResponse::new(
    Box::pin(goes_wrong().into_actor(actor))
));
blow!(InSpawned, (), |actor, context| {
    context.spawn(goes_wrong().into_actor(actor));
});
blow!(Stop, (), |_actor, context| context.stop());

struct Note(u32);

impl Message for Note {
    type Result = ();
}

impl Handler<Note> for Subject {
    type Result = ();

    fn handle(&mut self, Note(number): Note, _: &mut Context<Self>) {
        self.notes.handled.borrow_mut().push(number);
    }
}

/// Spawns a future on the actor that never ends.
struct SpawnFuture;

impl Message for SpawnFuture {
    type Result = ();
}

struct CountsItsEnd(Rc<Cell<u32>>);

impl Drop for CountsItsEnd {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

impl Handler<SpawnFuture> for Subject {
    type Result = ();

    fn handle(&mut self, _: SpawnFuture, context: &mut Context<Self>) {
        let end = CountsItsEnd(Rc::clone(&self.notes.spawned_futures_dropped));
        let never = async move {
            let _end = end;
            std::future::pending::<()>().await;
        };
        context.spawn(never.into_actor(self));
    }
}

/// Who watches over the actor.
#[derive(Clone, Copy, Debug)]
enum Watcher {
    Nobody,
    ActixSupervisor,
    OurGuard,
}

impl Watcher {
    fn start(self, actor: Subject) -> Addr<Subject> {
        crate::panics::install_hook();
        match self {
            Self::ActixSupervisor => Supervisor::start(|_| actor),
            Self::Nobody => {
                let cell = Context::new().into_future(actor);
                let address = cell.address();
                actix_rt::spawn(cell);
                address
            }
            Self::OurGuard => {
                let cell = Context::new().into_future(actor);
                let address = cell.address();
                let restarts = |_| -> LocalBoxFuture<'static, Verdict> {
                    Box::pin(std::future::ready(Verdict::Restart))
                };
                actix_rt::spawn(Guard::new(cell, restarts));
                address
            }
        }
    }
}

/// What a blow did: to whom waited for it, to the message queued behind it, and to the actor.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    sender: &'static str,
    queued: &'static str,
    actor: &'static str,
}

async fn strike<M>(watcher: Watcher, blow: M) -> Fate
where
    M: Message<Result = ()> + Send + 'static,
    Subject: Handler<M>,
{
    fate(watcher, false, |address| address.send(blow)).await
}

async fn fate<F>(
    watcher: Watcher,
    panics_in_started: bool,
    strike: impl FnOnce(&Addr<Subject>) -> F,
) -> Fate
where
    F: Future<Output = Result<(), actix::MailboxError>>,
{
    let notes = Notes::default();
    let address = watcher.start(Subject { notes: notes.clone(), panics_in_started });
    let blow = strike(&address);
    // Refused only when the actor has died already.
    address.try_send(Note(1)).ok();
    let sender = blow.await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    Fate {
        sender: if sender.is_ok() { "answered" } else { "closed" },
        queued: if notes.handled.borrow().contains(&1) { "handled" } else { "lost" },
        actor: match (address.send(Note(2)).await.is_ok(), notes.started.get()) {
            (false, _) => "dead",
            (true, 1) => "lives",
            (true, _) => "restarted",
        },
    }
}

fn fate_of(sender: &'static str, queued: &'static str, actor: &'static str) -> Fate {
    Fate { sender, queued, actor }
}

fn on_a_system(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn an_actor_that_nobody_guards_dies_of_every_panic_but_one() {
    on_a_system(async {
        let alone = Watcher::Nobody;
        assert_eq!(strike(alone, InHandler).await, fate_of("closed", "lost", "dead"));
        assert_eq!(strike(alone, InResponseFuture).await, fate_of("closed", "handled", "lives"));
        assert_eq!(strike(alone, InResponseActFuture).await, fate_of("closed", "handled", "dead"));
        assert_eq!(strike(alone, InAtomicResponse).await, fate_of("closed", "lost", "dead"));
        assert_eq!(strike(alone, InSpawned).await, fate_of("answered", "handled", "dead"));
        let started = fate(alone, true, |address| address.send(Note(0))).await;
        assert_eq!(started, fate_of("closed", "lost", "dead"));
    });
}

#[test]
fn the_supervisor_of_actix_restarts_after_a_stop_and_after_no_panic() {
    on_a_system(async {
        let theirs = Watcher::ActixSupervisor;
        assert_eq!(strike(theirs, InHandler).await, fate_of("closed", "lost", "dead"));
        assert_eq!(strike(theirs, InResponseFuture).await, fate_of("closed", "handled", "lives"));
        assert_eq!(strike(theirs, InResponseActFuture).await, fate_of("closed", "handled", "dead"));
        assert_eq!(strike(theirs, InAtomicResponse).await, fate_of("closed", "lost", "dead"));
        assert_eq!(strike(theirs, InSpawned).await, fate_of("answered", "handled", "dead"));
        let started = fate(theirs, true, |address| address.send(Note(0))).await;
        assert_eq!(started, fate_of("closed", "lost", "dead"));
        assert_eq!(strike(theirs, Stop).await.actor, "restarted");
    });
}

#[test]
fn a_guarded_actor_lives_on_behind_its_address_and_stops_only_when_it_wants() {
    on_a_system(async {
        let ours = Watcher::OurGuard;
        assert_eq!(strike(ours, InHandler).await, fate_of("closed", "handled", "restarted"));
        assert_eq!(strike(ours, InResponseFuture).await, fate_of("closed", "handled", "lives"));
        assert_eq!(
            strike(ours, InResponseActFuture).await,
            fate_of("closed", "handled", "restarted")
        );
        assert_eq!(strike(ours, InAtomicResponse).await, fate_of("closed", "handled", "restarted"));
        assert_eq!(strike(ours, InSpawned).await, fate_of("answered", "handled", "restarted"));
        let started = fate(ours, true, |address| address.send(Note(0))).await;
        assert_eq!(started, fate_of("answered", "handled", "restarted"));
        assert_eq!(strike(ours, Stop).await.actor, "dead");
    });
}

#[test]
fn a_restart_drops_the_futures_that_the_actor_has_spawned() {
    on_a_system(async {
        let notes = Notes::default();
        let subject = Subject { notes: notes.clone(), panics_in_started: false };
        let address = Watcher::OurGuard.start(subject);
        address.send(SpawnFuture).await.unwrap();
        assert_eq!(notes.spawned_futures_dropped.get(), 0);

        assert!(address.send(InHandler).await.is_err());
        address.send(Note(1)).await.unwrap();

        assert_eq!(notes.spawned_futures_dropped.get(), 1);
    });
}
