//! An agent's host with its mailbox, and the least of a context that lets it handle messages.
//!
//! actix's own context keeps room for the futures and the timers that an actor gives to it: 320 bytes
//! that every agent would carry along, and lists to look through at every poll. A host gives it none:
//! work and timers are futures of their own.

use std::task::{Context, Poll};

use actix::dev::channel::AddressReceiver;
use actix::dev::{Envelope, Mailbox, ToEnvelope};
use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorState, AsyncContext, Handler, Message, SpawnHandle};
use tokio::sync::oneshot;

use super::{AgentHost, HostAddr};
use crate::guard::Cell;

/// What the handlers of a host can ask for: that it stops.
pub(crate) struct HostContext(ActorState);

/// The actor of a host, as its guard polls it.
pub(super) struct HostCell {
    host: AgentHost,
    context: HostContext,
    mailbox: Mailbox<AgentHost>,
}

impl HostCell {
    /// Puts a host behind the address that receives.
    pub(super) fn new(host: AgentHost, receiver: AddressReceiver<AgentHost>) -> Self {
        let context = HostContext(ActorState::Started);
        Self { host, context, mailbox: Mailbox::new(receiver) }
    }
}

impl Cell for HostCell {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.context.0 == ActorState::Started {
            self.context.0 = ActorState::Running;
            self.host.started(&mut self.context);
        }
        self.mailbox.poll(&mut self.host, &mut self.context, cx);
        let is_over = self.context.waiting() || !self.mailbox.connected();
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }

    fn restart(&mut self) -> bool {
        self.context.0 = ActorState::Started;
        self.mailbox.connected()
    }

    fn terminate(&mut self) {
        self.context.terminate();
    }
}

impl ActorContext for HostContext {
    fn stop(&mut self) {
        if self.0.alive() {
            self.0 = ActorState::Stopping;
        }
    }

    fn terminate(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.0
    }
}

/// What only an actor asks for that knows its address or gives futures to its context.
impl AsyncContext<AgentHost> for HostContext {
    fn address(&self) -> HostAddr {
        unreachable!("a host gives its address to nobody")
    }

    fn spawn<F>(&mut self, _: F) -> SpawnHandle
    where
        F: ActorFuture<AgentHost, Output = ()> + 'static,
    {
        unreachable!("a host gives no future to its context")
    }

    fn wait<F>(&mut self, _: F)
    where
        F: ActorFuture<AgentHost, Output = ()> + 'static,
    {
        unreachable!("a host gives no future to its context")
    }

    fn waiting(&self) -> bool {
        self.0.stopping()
    }

    fn cancel_future(&mut self, _: SpawnHandle) -> bool {
        false
    }
}

impl<M> ToEnvelope<AgentHost, M> for HostContext
where
    AgentHost: Handler<M>,
    M: Message<Result: Send> + Send + 'static,
{
    fn pack(message: M, answer: Option<oneshot::Sender<M::Result>>) -> Envelope<AgentHost> {
        Envelope::new(message, answer)
    }
}
