//! Delivers assignments to agents, through what chaos does to messages on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::SendError;
use guild_core::id::{AgentId, FencingToken};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::host::{HostAddr, order};
use crate::message::{Assign, Blow};

/// How long a message waits for later ones to overtake it; then it arrives alone.
pub(super) const OVERTAKEN_MAX: Duration = Duration::from_millis(50);

/// Assignments on their way.
#[derive(Default)]
pub(super) struct Post {
    /// The newest assignment of each agent that was struck on its way, with the fault.
    struck: BTreeMap<AgentId, (FencingToken, u64)>,
    held: Overtaken<(HostAddr, Assign)>,
}

impl Post {
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
        let mut is_held = false;
        match fault.map(|(fault, number)| (number, fault)) {
            Some((_, Fault::Lose)) => assign.lease.void(),
            Some((_, Fault::Refuse)) => assign.lease.refuse(),
            Some((_, Fault::Delay(delay))) => {
                deliver_late(host.clone(), assign, clock.delay(delay))
            }
            Some((_, Fault::Reorder(behind))) => {
                self.held.hold(behind, (host.clone(), assign));
                is_held = true;
            }
            Some((_, Fault::Repeat)) => {
                let Assign { lease, input, deadline } = &assign;
                let copy =
                    Assign { lease: lease.copy(), input: input.clone(), deadline: *deadline };
                deliver(host, assign);
                deliver(host, copy);
            }
            Some((number, Fault::CrashQueued)) => {
                order(host, Blow { fault: number });
                deliver(host, assign);
            }
            Some(_) | None if latency.is_zero() => deliver(host, assign),
            Some(_) | None => deliver_late(host.clone(), assign, latency),
        }
        overtakes.into_iter().for_each(|(host, assign)| deliver(&host, assign));
        is_held
    }

    /// Delivers what is still held back.
    pub(super) fn release(&mut self) {
        self.held.release().into_iter().for_each(|(host, assign)| deliver(&host, assign));
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

fn deliver_late(host: HostAddr, assign: Assign, delay: Duration) {
    actix_rt::spawn(async move {
        tokio::time::sleep(delay).await;
        deliver(&host, assign);
    });
}

fn deliver(host: &HostAddr, assign: Assign) {
    match host.try_send(assign) {
        Ok(()) => {}
        // The agent lives and is only slow to read: it must not be taken for one that is gone.
        Err(SendError::Full(assign)) => assign.lease.refuse(),
        // Dropping the message drops its lease, which hands the task back.
        Err(SendError::Closed(_)) => tracing::debug!("assignment was not delivered"),
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
