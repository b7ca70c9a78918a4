//! The threads on which agents live: which there are, who lives on which, and what replaces one that
//! an agent blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix_rt::Arbiter;
use guild_core::id::{AgentId, RoleId};
use guild_core::supervision::{Placement, ThreadUse};
use guild_core::time::Timestamp;

use crate::beacon::Beacon;
use crate::watchdog::Watchdog;

/// The threads of all agents; on the stage of a simulation there are none.
pub(crate) struct Threads {
    list: Vec<Thread>,
    watchdog: Watchdog,
    /// When an agent may be moved again.
    next_move_at: Timestamp,
    /// Whether panics have their stack captured.
    backtraces: bool,
}

struct Thread {
    arbiter: Arbiter,
    /// The role that has it for itself.
    role: Option<RoleId>,
    agents: u32,
    is_hung: bool,
}

/// A place among the threads; none: the control thread.
pub(crate) type Place = Option<u16>;

/// The threads that a role may use.
pub(crate) struct Places {
    usable: Vec<u16>,
    placement: Placement,
}

/// Time between two moves: until one shows in what was measured.
const MOVES_APART: Duration = Duration::from_millis(250);

impl Threads {
    /// Starts threads that all agents share, and those that a role has for itself.
    pub(crate) fn start(
        shared: usize,
        bulkheads: &BTreeMap<RoleId, usize>,
        watchdog: Watchdog,
        backtraces: bool,
    ) -> Self {
        let next_move_at = Timestamp::default();
        let mut threads = Self { list: Vec::new(), watchdog, next_move_at, backtraces };
        for _ in 0..shared {
            threads.add(None);
        }
        for (role, count) in bulkheads {
            for _ in 0..*count {
                threads.add(Some(*role));
            }
        }
        threads
    }

    /// Returns whether agents have threads of their own.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the threads that a role may use, with what they have to do.
    pub(crate) fn places(&self, role: RoleId) -> Places {
        self.among(self.usable(role))
    }

    fn among(&self, usable: Vec<u16>) -> Places {
        let uses = if usable.is_empty() { Vec::new() } else { self.watchdog.uses() };
        let of = |place: &u16| {
            let of = uses.get(usize::from(*place)).copied().unwrap_or_default();
            ThreadUse { agents: self.list[usize::from(*place)].agents, ..of }
        };
        let placement = Placement::new(usable.iter().map(of).collect());
        Places { usable, placement }
    }

    /// Gives an agent a place among those of its role; it does as much as it has done `before`.
    pub(crate) fn place(
        &mut self,
        places: &mut Places,
        agent: AgentId,
        before: Option<u16>,
    ) -> Place {
        let share = before.and_then(|before| self.watchdog.share_of(before, agent));
        let place = places.placement.place(share)?;
        let place = *places.usable.get(place)?;
        self.list[usize::from(place)].agents += 1;
        Some(place)
    }

    /// Moves an agent that begins another life to a thread that has so much less to do that this is
    /// worth it. Returns where it lives then; none: where it was.
    pub(crate) fn move_on(&mut self, now: Timestamp, agent: AgentId, from: u16) -> Place {
        if now < self.next_move_at {
            return None;
        }
        let usable = self.usable(agent.role);
        if usable.len() < 2 {
            return None;
        }
        let places = self.among(usable);
        let at = places.usable.iter().position(|place| *place == from)?;
        let share = self.watchdog.share_of(from, agent);
        let place = *places.usable.get(places.placement.better(at, share)?)?;
        self.next_move_at = now.after(MOVES_APART);
        self.list[usize::from(from)].agents -= 1;
        self.list[usize::from(place)].agents += 1;
        Some(place)
    }

    fn usable(&self, role: RoleId) -> Vec<u16> {
        let has_own = self.list.iter().any(|thread| thread.role == Some(role));
        let wanted = has_own.then_some(role);
        let usable = |thread: &Thread| !thread.is_hung && thread.role == wanted;
        (0..).zip(&self.list).filter(|(_, thread)| usable(thread)).map(|(place, _)| place).collect()
    }

    /// Starts a thread in the place of one that is blocked; its agents are placed anew.
    pub(crate) fn replace(&mut self, hung: u16) {
        if let Some(thread) = self.list.get_mut(usize::from(hung)) {
            thread.is_hung = true;
            thread.agents = 0;
            let role = thread.role;
            self.add(role);
        }
    }

    /// Ends a thread that was blocked and runs again: nobody lives on it.
    pub(crate) fn retire(&mut self, awake: u16) {
        if let Some(thread) = self.list.get(usize::from(awake)).filter(|thread| thread.is_hung) {
            thread.arbiter.stop();
        }
    }

    /// Does something on a thread.
    pub(crate) fn spawn(&self, place: u16, work: impl Future<Output = ()> + Send + 'static) {
        let thread = self.list.get(usize::from(place));
        if !thread.is_some_and(|thread| thread.arbiter.spawn(work)) {
            tracing::error!(place, "a thread ended before its agents started");
        }
    }

    /// Ends the watch and hands over the threads that are not blocked, to be stopped; the others end
    /// with the process.
    pub(crate) fn end(&mut self) -> Vec<Arbiter> {
        self.watchdog.end();
        let threads = std::mem::take(&mut self.list);
        threads.into_iter().filter(|thread| !thread.is_hung).map(|thread| thread.arbiter).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place where agents get threads")]
    fn add(&mut self, role: Option<RoleId>) {
        let (arbiter, beacon) = (Arbiter::new(), Arc::new(Beacon::default()));
        self.watchdog.add(Arc::clone(&beacon));
        let backtraces = self.backtraces;
        let set_up = move || {
            beacon.install();
            crate::panics::capture_backtraces(backtraces);
        };
        if !arbiter.spawn_fn(set_up) {
            tracing::error!("a thread ended before it could be watched");
        }
        self.list.push(Thread { arbiter, role, agents: 0, is_hung: false });
    }
}
