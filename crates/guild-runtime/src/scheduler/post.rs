//! Delivers assignments to agents, through what chaos does to messages on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use guild_core::id::{AgentId, FencingToken};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::host::{HostAddr, Undelivered};
use crate::message::{Assign, HostMessage};

/// How long a message waits for later ones to overtake it; then it arrives alone.
pub(super) const OVERTAKEN_MAX: Duration = Duration::from_millis(50);

/// Assignments on their way.
pub(super) struct Post {
    /// How many messages may wait for an agent.
    room: usize,
    /// The newest assignment of each agent that was struck on its way, with the fault.
    struck: BTreeMap<AgentId, (FencingToken, u64)>,
    held: Overtaken<(HostAddr, Assign)>,
}

impl Post {
    /// Returns a post for mailboxes in which so many messages may wait.
    pub(super) fn new(room: usize) -> Self {
        Self { room, struck: BTreeMap::new(), held: Overtaken::default() }
    }

    /// Sends an assignment; returns whether it is held back until others have overtaken it.
    pub(super) fn send(
        &mut self,
        host: &HostAddr,
        assign: Assign,
        fault: Option<(Fault, u64)>,
        latency: Duration,
        clock: Clock,
    ) -> bool {
        let overtakes = if self.held.is_empty() { Vec::new() } else { self.held.pass() };
        if let Some((_, number)) = fault {
            self.struck.insert(assign.lease.agent, (assign.lease.token, number));
        }
        let (mut is_held, room) = (false, self.room);
        match fault.map(|(fault, number)| (number, fault)) {
            Some((_, Fault::Lose)) => assign.lease.void(),
            Some((_, Fault::Refuse)) => assign.lease.refuse(),
            Some((_, Fault::Delay(delay))) => {
                deliver_late(host.clone(), assign, room, clock.delay(delay));
            }
            Some((_, Fault::Reorder(behind))) => {
                self.held.hold(behind, (host.clone(), assign));
                is_held = true;
            }
            Some((_, Fault::Repeat)) => {
                let Assign { lease, input, deadline } = &assign;
                let copy =
                    Assign { lease: lease.copy(), input: input.clone(), deadline: *deadline };
                deliver(host, assign, room);
                deliver(host, copy, room);
            }
            Some((number, Fault::CrashQueued)) => {
                host.order(HostMessage::Blow { fault: number });
                deliver(host, assign, room);
            }
            Some(_) | None if latency.is_zero() => deliver(host, assign, room),
            Some(_) | None => deliver_late(host.clone(), assign, room, latency),
        }
        overtakes.into_iter().for_each(|(host, assign)| deliver(&host, assign, room));
        is_held
    }

    /// Delivers what is still held back.
    pub(super) fn release(&mut self) {
        let held = self.held.release();
        held.into_iter().for_each(|(host, assign)| deliver(&host, assign, self.room));
    }

    /// Returns how many assignments are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the fault that struck this assignment on its way, if one did.
    pub(super) fn struck(&mut self, agent: AgentId, token: FencingToken) -> Option<u64> {
        let (struck, fault) = *self.struck.get(&agent)?;
        (struck == token).then(|| self.struck.remove(&agent)).map(|_| fault)
    }
}

fn deliver_late(host: HostAddr, assign: Assign, room: usize, delay: Duration) {
    actix_rt::spawn(async move {
        tokio::time::sleep(delay).await;
        deliver(&host, assign, room);
    });
}

fn deliver(host: &HostAddr, assign: Assign, room: usize) {
    match host.assign(assign, room) {
        Ok(()) => {}
        // It must not be taken for one that is gone.
        Err(Undelivered::Full(assign)) => assign.lease.refuse(),
        Err(Undelivered::Closed) => tracing::debug!("assignment was not delivered"),
    }
}

/// Messages that arrive behind later ones.
pub(super) struct Overtaken<T>(Vec<(u32, T)>);

impl<T> Default for Overtaken<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Overtaken<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Holds a message back until this many others have passed.
    pub(super) fn hold(&mut self, behind: u32, message: T) {
        self.0.push((behind.max(1), message));
    }

    /// Lets one message pass, and returns those whose turn it is behind it.
    pub(super) fn pass(&mut self) -> Vec<T> {
        let (mut due, mut held) = (Vec::new(), Vec::new());
        for (behind, message) in self.0.drain(..) {
            match behind - 1 {
                0 => due.push(message),
                left => held.push((left, message)),
            }
        }
        self.0 = held;
        due
    }

    /// Returns all of them, in order.
    pub(super) fn release(&mut self) -> Vec<T> {
        self.0.drain(..).map(|(_, message)| message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_arrives_behind_as_many_as_it_was_told() {
        let mut held = Overtaken::default();
        held.hold(2, 'a');
        held.hold(1, 'b');

        assert_eq!(held.pass(), ['b']);
        assert_eq!(held.pass(), ['a']);
        assert!(held.is_empty());
    }

    #[test]
    fn message_that_nothing_overtakes_is_released() {
        let mut held = Overtaken::default();
        held.hold(5, 'a');
        held.pass();

        assert_eq!(held.release(), ['a']);
    }
}
