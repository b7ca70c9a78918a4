//! The state machine of one supervisor.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::restart::{self, RestartLedger};
use crate::time::Timestamp;

use super::ceiling::Deaths;
use super::{
    Ending, Exhausted, Exit, Input, Kind, Order, RestartType, Strategy, SupervisorSpec, Verdict,
};

/// One supervisor and what it knows of its children.
#[derive(Clone, Debug)]
pub struct Supervisor {
    spec: SupervisorSpec,
    kind: Kind,
    children: Vec<Child>,
    deaths: Deaths,
    phase: Phase,
    /// What is due of which child: a start, or the end of the time it may take to stop.
    due: BTreeSet<(Timestamp, u32)>,
    /// Whether all children have come up since the start, or are kept down.
    is_ready: bool,
    /// Whether all children have ended for good since the start.
    is_extinct: bool,
    count: Count,
}

#[derive(Clone, Debug)]
struct Child {
    state: State,
    /// What is remembered of its deaths: most children have none, and there may be very many.
    ledger: Option<Box<RestartLedger>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It does not run, and nothing is planned.
    Down,
    /// It has ended for good, as its restart type says.
    Gone,
    /// It was told to start.
    Starting,
    /// It runs since then.
    Up(Timestamp),
    /// It was told to stop, and is left behind at this time; [`NEVER`]: it takes as long as it takes.
    Stopping(Timestamp),
    /// It is started at this time.
    Waiting(Timestamp),
    /// It is started at this time, on probation.
    Quarantined(Timestamp),
}

/// A time that does not come.
const NEVER: Timestamp = Timestamp(u64::MAX);

/// How many children are in a state.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    gone: usize,
    starting: usize,
    stopping: usize,
    waiting: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the start and after the end.
    Idle,
    Serving,
    /// Children from `from` on are stopped, the last one first; `next` is the place behind the one
    /// that is looked at next.
    Stopping {
        from: u32,
        next: u32,
        then: Then,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    StartAgain { delay: Duration },
    End(Ending),
}

impl Supervisor {
    /// Returns a supervisor that has not started, of this many children.
    pub fn new(spec: SupervisorSpec, kind: Kind, children: u32) -> Self {
        let child = Child { state: State::Down, ledger: None };
        Self {
            spec,
            kind,
            children: vec![child; children as usize],
            deaths: Deaths::default(),
            phase: Phase::Idle,
            due: BTreeSet::new(),
            is_ready: false,
            is_extinct: false,
            count: Count::default(),
        }
    }

    /// Takes one input at `now` and appends what is to be done. `draw` is in `0.0..1.0`. For a child
    /// that went down, returns what becomes of it; none where that was known or no longer matters.
    pub fn step(
        &mut self,
        now: Timestamp,
        input: Input,
        draw: f64,
        orders: &mut Vec<Order>,
    ) -> Option<Verdict> {
        let verdict = match input {
            Input::Start => {
                self.start(now, orders);
                None
            }
            Input::Stop => {
                self.begin_stop(now, 0, Then::End(Ending::Stopped), orders);
                None
            }
            Input::Up { child } => {
                if self.state(child) == Some(State::Starting) {
                    self.set(child, State::Up(now));
                }
                None
            }
            Input::Passed { child } => {
                if let Some(State::Up(_)) = self.state(child)
                    && let Some(ledger) = &mut self.children[child as usize].ledger
                {
                    ledger.passed();
                }
                None
            }
            Input::Forgiven { child } => {
                self.forgive(child, orders);
                None
            }
            Input::Down { child, exit } => self.down(now, child, exit, draw, orders),
            Input::Stopped { child } => {
                self.stopped(now, child, orders);
                None
            }
            Input::Tick => None,
        };
        self.do_what_is_due(now, orders);
        self.tell_news(orders);
        verdict
    }

    /// Returns when the next [`Input::Tick`] is due.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.first_due().map(|(at, _)| at)
    }

    /// Returns whether a child is in quarantine.
    pub fn is_quarantined(&self, child: u32) -> bool {
        matches!(self.state(child), Some(State::Quarantined(_)))
    }

    fn start(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        if self.phase != Phase::Idle {
            return;
        }
        // A supervisor that is started again does not hold the past against its children.
        self.deaths = Deaths::default();
        self.phase = Phase::Serving;
        self.is_ready = false;
        self.is_extinct = false;
        for place in self.places_from(0) {
            self.children[place as usize].ledger = None;
            if self.is_in_sequence() {
                self.set(place, State::Waiting(now));
            } else {
                self.set(place, State::Starting);
                orders.push(Order::Start { child: place, probe: false, released: false });
            }
        }
    }

    fn down(
        &mut self,
        now: Timestamp,
        place: u32,
        exit: Exit,
        draw: f64,
        orders: &mut Vec<Order>,
    ) -> Option<Verdict> {
        let state = self.state(place)?;
        match state {
            State::Starting | State::Up(_) => {}
            // It died of its own accord before it could obey.
            State::Stopping(_) => {
                let fate = self.fate_of_a_stopped_child();
                self.stopped(now, place, orders);
                return Some(fate);
            }
            State::Down | State::Gone | State::Waiting(_) | State::Quarantined(_) => return None,
        }
        self.set(place, State::Down);
        if let Phase::Stopping { from, .. } = self.phase
            && place >= from
        {
            return Some(self.fate_of_a_stopped_child());
        }
        match (exit, self.spec.restart_type) {
            // Somebody else has ended its life: that is not held against it.
            (Exit::Blameless, _) => Some(self.wait(place, now)),
            (_, RestartType::Temporary) | (Exit::Normal, RestartType::Transient) => {
                self.set(place, State::Gone);
                Some(Verdict::Gone)
            }
            (Exit::Normal, _) => Some(self.wait(place, now)),
            (Exit::Failed { cause }, _) => {
                let ledger = self.children[place as usize].ledger.get_or_insert_default();
                if let State::Up(since) = state {
                    ledger.running(since);
                }
                let verdict = ledger.crashed(&self.spec.restart, now, draw);
                Some(self.failed(now, place, cause, verdict, orders))
            }
            (Exit::Condemned { cause }, _) => {
                let ledger = self.children[place as usize].ledger.get_or_insert_default();
                let verdict = ledger.condemned(&self.spec.restart, now);
                Some(self.failed(now, place, cause, verdict, orders))
            }
        }
    }

    /// Decides about a child that failed while its supervisor served.
    fn failed(
        &mut self,
        now: Timestamp,
        place: u32,
        cause: u64,
        verdict: restart::Verdict,
        orders: &mut Vec<Order>,
    ) -> Verdict {
        let one_for_one = self.spec.strategy == Strategy::OneForOne;
        let too_many = self.deaths.exceed(&self.spec.ceiling, now, cause);
        match verdict {
            restart::Verdict::Restart { delay } if !too_many => {
                if one_for_one {
                    return self.wait(place, now.after(delay));
                }
                let from = if self.spec.strategy == Strategy::OneForAll { 0 } else { place };
                self.begin_stop(now, from, Then::StartAgain { delay }, orders);
                Verdict::Restart { at: now.after(delay) }
            }
            restart::Verdict::Quarantine { until }
                if !too_many && one_for_one && self.spec.exhausted == Exhausted::Quarantine =>
            {
                self.set(place, State::Quarantined(until));
                Verdict::Quarantine { until }
            }
            restart::Verdict::Restart { .. } | restart::Verdict::Quarantine { .. } => {
                let ending = Ending::Meltdown { child: place, cause };
                self.begin_stop(now, 0, Then::End(ending), orders);
                Verdict::Meltdown
            }
        }
    }

    /// Holds the newest failure against a child no longer, and ends the quarantine that it led to.
    fn forgive(&mut self, place: u32, orders: &mut Vec<Order>) {
        let is_quarantined = self.is_quarantined(place);
        let Some(child) = self.children.get_mut(place as usize) else {
            return;
        };
        let Some(ledger) = &mut child.ledger else {
            return;
        };
        ledger.forgive(is_quarantined);
        if is_quarantined {
            let probe = ledger.is_half_open();
            self.set(place, State::Starting);
            orders.push(Order::Start { child: place, probe, released: true });
        }
    }

    fn wait(&mut self, place: u32, at: Timestamp) -> Verdict {
        self.set(place, State::Waiting(at));
        Verdict::Restart { at }
    }

    fn fate_of_a_stopped_child(&self) -> Verdict {
        match self.phase {
            Phase::Stopping { then: Then::End(_), .. } | Phase::Idle => Verdict::Gone,
            Phase::Stopping { then: Then::StartAgain { .. }, .. } | Phase::Serving => {
                Verdict::Joined
            }
        }
    }

    /// Begins to stop the children from `from` on. A stop of more children, or for good, takes over
    /// one that is under way.
    fn begin_stop(&mut self, now: Timestamp, from: u32, then: Then, orders: &mut Vec<Order>) {
        match (self.phase, then) {
            (Phase::Idle, Then::End(Ending::Stopped)) => {
                orders.push(Order::Ended(Ending::Stopped));
                return;
            }
            (Phase::Idle, _) => return,
            (Phase::Stopping { then: Then::End(Ending::Stopped), .. }, _) => return,
            (Phase::Stopping { then: Then::End(_), .. }, Then::StartAgain { .. }) => return,
            (Phase::Serving | Phase::Stopping { .. }, _) => {}
        }
        let from = match self.phase {
            Phase::Stopping { from: earlier, .. } => from.min(earlier),
            Phase::Idle | Phase::Serving => from,
        };
        for place in self.places_from(from) {
            match self.children[place as usize].state {
                State::Waiting(_) => self.set(place, State::Down),
                // Quarantine outlasts a restart of the others, but not the end.
                State::Quarantined(_) if matches!(then, Then::End(_)) => {
                    self.set(place, State::Down);
                }
                _ => {}
            }
        }
        self.phase = Phase::Stopping { from, next: self.places_from(0).end, then };
        self.go_on_stopping(now, orders);
    }

    fn stopped(&mut self, now: Timestamp, place: u32, orders: &mut Vec<Order>) {
        if let Some(State::Stopping(_)) = self.state(place) {
            self.set(place, State::Down);
            self.go_on_stopping(now, orders);
        }
    }

    /// Stops the next child in reverse order, or all that are left where they do not depend on each
    /// other; when none is left, goes on.
    fn go_on_stopping(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let Phase::Stopping { from, mut next, then } = self.phase else {
            return;
        };
        let one_by_one = self.is_in_sequence() || self.kind == Kind::Supervisors;
        while next > from && !(one_by_one && self.count.stopping > 0) {
            next -= 1;
            if let Some(State::Starting | State::Up(_)) = self.state(next) {
                let until = match self.kind {
                    Kind::Agents => now.after(self.spec.shutdown),
                    Kind::Supervisors => NEVER,
                };
                self.set(next, State::Stopping(until));
                orders.push(Order::Stop { child: next });
            }
        }
        self.phase = Phase::Stopping { from, next, then };
        if self.count.stopping > 0 {
            return;
        }
        match then {
            Then::End(ending) => {
                self.phase = Phase::Idle;
                orders.push(Order::Ended(ending));
            }
            Then::StartAgain { delay } => {
                self.phase = Phase::Serving;
                for place in self.places_from(from) {
                    if self.state(place) == Some(State::Down) {
                        self.wait(place, now.after(delay));
                    }
                }
            }
        }
    }

    fn do_what_is_due(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        while let Some((_, place)) = self.first_due().filter(|(at, _)| *at <= now) {
            let state = self.children[place as usize].state;
            if let State::Stopping(_) = state {
                self.set(place, State::Down);
                orders.push(Order::Abandon { child: place });
                self.go_on_stopping(now, orders);
                continue;
            }
            let released = matches!(state, State::Quarantined(_));
            let ledger = &mut self.children[place as usize].ledger;
            if released && let Some(ledger) = ledger {
                ledger.released();
            }
            let probe = ledger.as_ref().is_some_and(|ledger| ledger.is_half_open());
            self.set(place, State::Starting);
            orders.push(Order::Start { child: place, probe, released });
        }
    }

    /// Returns what is due first. Where children depend on each other none is started before the one
    /// before it is up.
    fn first_due(&self) -> Option<(Timestamp, u32)> {
        let is_stop = |place: u32| matches!(self.state(place), Some(State::Stopping(_)));
        let waits_for_a_start = self.is_in_sequence() && self.count.starting > 0;
        let mut due = self.due.iter().copied();
        match (waits_for_a_start, self.count.stopping) {
            (false, _) => due.next(),
            (true, 0) => None,
            (true, _) => due.find(|(_, place)| is_stop(*place)),
        }
    }

    fn tell_news(&mut self, orders: &mut Vec<Order>) {
        if self.phase != Phase::Serving || self.children.is_empty() {
            return;
        }
        if !self.is_ready && self.count.starting + self.count.waiting == 0 {
            self.is_ready = true;
            orders.push(Order::Ready);
        }
        if !self.is_extinct && self.count.gone == self.children.len() {
            self.is_extinct = true;
            orders.push(Order::Extinct);
        }
    }

    /// Returns whether the children depend on each other: they are started and stopped one by one.
    pub fn is_in_sequence(&self) -> bool {
        self.spec.strategy != Strategy::OneForOne
    }

    fn places_from(&self, from: u32) -> std::ops::Range<u32> {
        from..u32::try_from(self.children.len()).unwrap_or(u32::MAX)
    }

    fn state(&self, place: u32) -> Option<State> {
        self.children.get(place as usize).map(|child| child.state)
    }

    /// Moves a child to another state: the only place where that changes.
    fn set(&mut self, place: u32, state: State) {
        let before = std::mem::replace(&mut self.children[place as usize].state, state);
        if let Some(count) = self.count.of(before) {
            *count -= 1;
        }
        if let Some(count) = self.count.of(state) {
            *count += 1;
        }
        if let Some(at) = before.due() {
            self.due.remove(&(at, place));
        }
        if let Some(at) = state.due() {
            self.due.insert((at, place));
        }
    }
}

impl State {
    fn due(self) -> Option<Timestamp> {
        match self {
            Self::Waiting(at) | Self::Quarantined(at) => Some(at),
            Self::Stopping(until) => Some(until).filter(|until| *until != NEVER),
            Self::Down | Self::Gone | Self::Starting | Self::Up(_) => None,
        }
    }
}

impl Count {
    fn of(&mut self, state: State) -> Option<&mut usize> {
        match state {
            State::Gone => Some(&mut self.gone),
            State::Starting => Some(&mut self.starting),
            State::Stopping(_) => Some(&mut self.stopping),
            State::Waiting(_) => Some(&mut self.waiting),
            State::Down | State::Up(_) | State::Quarantined(_) => None,
        }
    }
}
