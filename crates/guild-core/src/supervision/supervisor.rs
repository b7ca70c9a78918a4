//! The state machine of one supervisor.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::restart::{self, RestartLedger};
use crate::time::Timestamp;

use super::ceiling::Deaths;
use super::{
    Ending, Exhausted, Exit, Input, Order, RestartType, Strategy, SupervisorSpec, Verdict,
};

/// One supervisor and what it knows of its children.
#[derive(Clone, Debug)]
pub struct Supervisor {
    spec: SupervisorSpec,
    children: Vec<Child>,
    deaths: Deaths,
    phase: Phase,
    /// Children that are started later, by time.
    due: BTreeSet<(Timestamp, u32)>,
}

#[derive(Clone, Debug)]
struct Child {
    state: State,
    ledger: RestartLedger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It does not run, and nothing is planned.
    Down,
    /// It was told to start, or runs.
    Alive,
    /// It was told to stop.
    Stopping,
    /// It is started at this time.
    Waiting(Timestamp),
    /// It is started at this time, on probation.
    Quarantined(Timestamp),
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
    /// Returns a supervisor that has not started.
    pub fn new(spec: SupervisorSpec, children: u32) -> Self {
        let child = Child { state: State::Down, ledger: RestartLedger::default() };
        Self {
            spec,
            children: vec![child; children as usize],
            deaths: Deaths::default(),
            phase: Phase::Idle,
            due: BTreeSet::new(),
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
            Input::Start => self.start(orders),
            Input::Stop => {
                self.begin_stop(now, 0, Then::End(Ending::Stopped), orders);
                None
            }
            Input::Up { child } => {
                if let Some(child) = self.child_in(child, State::Alive) {
                    child.ledger.running(now);
                }
                None
            }
            Input::Passed { child } => {
                if let Some(child) = self.child_in(child, State::Alive) {
                    child.ledger.passed();
                }
                None
            }
            Input::Down { child, exit } => self.down(now, child, exit, draw, orders),
            Input::Stopped { child } => {
                self.stopped(now, child, orders);
                None
            }
            Input::Tick => None,
        };
        self.start_due(now, orders);
        verdict
    }

    /// Returns when the next [`Input::Tick`] is due.
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns whether a child is in quarantine.
    pub fn is_quarantined(&self, child: u32) -> bool {
        let state = self.children.get(child as usize).map(|child| child.state);
        matches!(state, Some(State::Quarantined(_)))
    }

    fn start(&mut self, orders: &mut Vec<Order>) -> Option<Verdict> {
        if self.phase == Phase::Idle {
            // A supervisor that is started again does not hold the past against its children.
            self.deaths = Deaths::default();
            self.phase = Phase::Serving;
            for (place, child) in (0..).zip(&mut self.children) {
                *child = Child { state: State::Alive, ledger: RestartLedger::default() };
                orders.push(Order::Start { child: place, probe: false, released: false });
            }
        }
        None
    }

    fn down(
        &mut self,
        now: Timestamp,
        place: u32,
        exit: Exit,
        draw: f64,
        orders: &mut Vec<Order>,
    ) -> Option<Verdict> {
        match self.children.get(place as usize)?.state {
            State::Alive => {}
            // It died of its own accord before it could obey.
            State::Stopping => {
                self.stopped(now, place, orders);
                return Some(self.fate_of_a_stopped_child());
            }
            State::Down | State::Waiting(_) | State::Quarantined(_) => return None,
        }
        self.children[place as usize].state = State::Down;
        if let Phase::Stopping { from, .. } = self.phase
            && place >= from
        {
            return Some(self.fate_of_a_stopped_child());
        }
        match (exit, self.spec.restart_type) {
            (_, RestartType::Temporary) | (Exit::Normal, RestartType::Transient) => {
                Some(Verdict::Gone)
            }
            (Exit::Normal | Exit::Blameless, _) => Some(self.wait(place, now)),
            (Exit::Failed { cause }, _) => Some(self.failed(now, place, cause, draw, orders)),
        }
    }

    /// Decides about a child that failed while its supervisor served.
    fn failed(
        &mut self,
        now: Timestamp,
        place: u32,
        cause: u64,
        draw: f64,
        orders: &mut Vec<Order>,
    ) -> Verdict {
        let one_for_one = self.spec.strategy == Strategy::OneForOne;
        let verdict = self.children[place as usize].ledger.crashed(&self.spec.restart, now, draw);
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
                self.children[place as usize].state = State::Quarantined(until);
                self.due.insert((until, place));
                Verdict::Quarantine { until }
            }
            restart::Verdict::Restart { .. } | restart::Verdict::Quarantine { .. } => {
                let ending = Ending::Meltdown { child: place, cause };
                self.begin_stop(now, 0, Then::End(ending), orders);
                Verdict::Meltdown
            }
        }
    }

    fn wait(&mut self, place: u32, at: Timestamp) -> Verdict {
        self.children[place as usize].state = State::Waiting(at);
        self.due.insert((at, place));
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
        let next = u32::try_from(self.children.len()).unwrap_or(u32::MAX);
        self.phase = Phase::Stopping { from, next, then };
        self.go_on_stopping(now, orders);
    }

    fn stopped(&mut self, now: Timestamp, place: u32, orders: &mut Vec<Order>) {
        if let Some(child) = self.child_in(place, State::Stopping) {
            child.state = State::Down;
            self.go_on_stopping(now, orders);
        }
    }

    /// Stops the next child in reverse order, one at a time; when none is left, goes on.
    fn go_on_stopping(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        let Phase::Stopping { from, mut next, then } = self.phase else {
            return;
        };
        let for_good = matches!(then, Then::End(_));
        while next > from {
            let place = next - 1;
            let child = &mut self.children[place as usize];
            match child.state {
                State::Alive => {
                    child.state = State::Stopping;
                    orders.push(Order::Stop { child: place });
                    self.phase = Phase::Stopping { from, next, then };
                    return;
                }
                State::Stopping => {
                    self.phase = Phase::Stopping { from, next, then };
                    return;
                }
                State::Waiting(at) => {
                    child.state = State::Down;
                    self.due.remove(&(at, place));
                }
                // Quarantine outlasts a restart of the others, but not the end.
                State::Quarantined(at) if for_good => {
                    child.state = State::Down;
                    self.due.remove(&(at, place));
                }
                State::Quarantined(_) | State::Down => {}
            }
            next = place;
        }
        match then {
            Then::End(ending) => {
                self.phase = Phase::Idle;
                orders.push(Order::Ended(ending));
            }
            Then::StartAgain { delay } => {
                self.phase = Phase::Serving;
                let at = now.after(delay);
                let places = from..u32::try_from(self.children.len()).unwrap_or(u32::MAX);
                for place in places {
                    if self.children[place as usize].state == State::Down {
                        self.wait(place, at);
                    }
                }
            }
        }
    }

    fn start_due(&mut self, now: Timestamp, orders: &mut Vec<Order>) {
        while let Some((at, place)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, place));
            let child = &mut self.children[place as usize];
            let released = child.state == State::Quarantined(at);
            if released {
                child.ledger.released();
            }
            child.state = State::Alive;
            let probe = child.ledger.is_half_open();
            orders.push(Order::Start { child: place, probe, released });
        }
    }

    fn child_in(&mut self, place: u32, state: State) -> Option<&mut Child> {
        self.children.get_mut(place as usize).filter(|child| child.state == state)
    }
}
