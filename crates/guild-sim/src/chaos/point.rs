//! Lets a drawn plan strike: the [`FaultPoint`] of a guild, asked at every site.
//!
//! What strikes an agent, a message or a sync is carried out by the runtime, on the way of real
//! failures. What is not at an agent's site (the process, the disk, a quota) is an [`Order`] to
//! whoever drives the world.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use guild_core::draw::{Seed, Stream};
use guild_core::event::EventRecord;
use guild_core::id::AgentId;
use guild_core::time::{Timestamp, micros};
use guild_runtime::{Fault, FaultPoint, Hit, Site as Place, Strike};
use tokio::sync::Notify;

use crate::plan::{self, Drawn, FaultId, Kind, Parameter, Scene, Site, Striker, Target};
use crate::world::{Disk, DiskFault};

/// A fault that whoever drives the world carries out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    /// Which fault of the plan, and which of its strikes.
    pub(super) fault: FaultId,
    /// What happens.
    pub(super) kind: Kind,
    /// Where it struck.
    pub(super) site: Site,
    /// How.
    pub(super) parameter: Parameter,
}

/// The faults of a drawn plan; every clone is the same.
#[derive(Clone, Debug)]
pub struct PlanFaults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ordered: Notify,
    seed: Seed,
    jitter: Duration,
    /// Whether a fault of the plan asks for the names of tasks.
    names_tasks: bool,
    /// Whether the clock is a simulation's.
    is_virtual: bool,
}

#[derive(Debug)]
struct State {
    striker: Striker,
    event_seq: u64,
    disk: Option<Disk>,
    /// What broke the disk, until the process has been started again.
    broken: Option<Order>,
    orders: VecDeque<Order>,
    /// Until when an agent's mailbox takes nothing, and the fault's number.
    full: BTreeMap<AgentId, (Timestamp, u64)>,
    /// When each agent stalls and goes on, and by which fault.
    swizzled: BTreeMap<(String, u32), (Timestamp, Timestamp, FaultId)>,
    /// The faults that have struck, by number.
    struck: BTreeMap<u64, FaultId>,
    /// An agent whose mailbox is to be full from its next number on.
    filling: Option<(AgentId, Timestamp)>,
}

impl PlanFaults {
    /// Returns the faults of a drawn plan for a scene; the guild's clock is that of a simulation
    /// or a real one.
    pub fn new(drawn: &Drawn, scene: &Scene, is_virtual: bool) -> Self {
        let asks = |method: &plan::DrawnMethod| {
            let select = &method.select;
            let some = method.kind.rule().target == Target::Tasks && select.mode != plan::Mode::All;
            some || select.tasks.is_some()
        };
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                striker: Striker::new(drawn, scene),
                event_seq: 0,
                disk: None,
                broken: None,
                orders: VecDeque::new(),
                full: BTreeMap::new(),
                swizzled: BTreeMap::new(),
                struck: BTreeMap::new(),
                filling: None,
            }),
            ordered: Notify::new(),
            seed: drawn.seed,
            jitter: drawn.knobs.jitter.unwrap_or_default(),
            names_tasks: drawn.methods.iter().any(asks),
            is_virtual,
        }))
    }

    /// Names the disk that faults of the store break.
    pub(super) fn strike_disk(&self, disk: Disk) {
        self.state().disk = Some(disk);
    }

    /// Waits for an order.
    pub(super) async fn ordered(&self) {
        while self.state().orders.is_empty() {
            self.0.ordered.notified().await;
        }
    }

    /// Takes the oldest order.
    pub(super) fn take_order(&self) -> Option<Order> {
        self.state().orders.pop_front()
    }

    /// Takes what broke the disk.
    pub(super) fn take_broken(&self) -> Option<Order> {
        self.state().broken.take()
    }

    /// Notes the number of a fault that was carried out from outside.
    pub(super) fn note(&self, number: u64, fault: FaultId) {
        self.state().struck.insert(number, fault);
    }

    /// Returns which fault of the plan has this number.
    pub(super) fn fault_of(&self, number: u64) -> Option<FaultId> {
        self.state().struck.get(&number).copied()
    }

    /// Returns all strikes in their order.
    pub(super) fn strikes(&self) -> Vec<FaultId> {
        self.state().striker.faults().to_vec()
    }

    /// Returns the agents that faults may strike.
    pub(super) fn selected(&self) -> BTreeSet<String> {
        self.state().striker.selected().iter().map(ToString::to_string).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after each of its changes, so a poisoned lock holds good data.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultPoint for PlanFaults {
    fn strike(&self, hit: &Hit<'_>) -> Option<Strike> {
        let mut state = self.state();
        let role = hit.agent.map(|agent| hit.names.role(agent.role));
        if let Some(strike) = state.lasting(hit, role) {
            return Some(strike);
        }
        let site = site(hit.site);
        if matches!(site, Site::Commit | Site::Sync) && state.broken.is_some() {
            // Nobody gets through to a disk that has failed: it cannot fail once more.
            return None;
        }
        let name = hit.task.filter(|_| self.0.names_tasks).map(|task| hit.names.task(task));
        let visit = plan::Hit {
            site,
            agent: hit.agent.zip(role),
            task: hit.task.map(|task| (name.as_deref().unwrap_or_default(), task)),
            event_seq: state.event_seq,
        };
        let strike = state.striker.strike(hit.now, &visit)?;
        let Some(fault) = fault_at_agent(&strike) else {
            state.break_disk(order(strike, site), self.0.seed);
            return None;
        };
        if let (Kind::FullMailbox, Parameter::For(lasts), Some(agent)) =
            (strike.kind, &strike.parameter, hit.agent)
        {
            state.filling = Some((agent, hit.now.after(*lasts)));
        }
        let after = match (site, &strike.parameter) {
            (Site::InPerform, Parameter::Delay(delay)) => *delay,
            _ => Duration::ZERO,
        };
        Some(Strike { after, tag: tag(strike.fault), ..Strike::new(fault, strike.kind.name()) })
    }

    fn struck(&self, tag: u64, number: u64) {
        let mut state = self.state();
        state.struck.insert(number, fault_of(tag));
        if let Some((agent, until)) = state.filling.take() {
            state.full.insert(agent, (until, number));
        }
    }

    /// Takes note of an event and visits the site of the process.
    fn told(&self, record: &EventRecord) {
        let (at, seq) = (record.at, record.seq);
        let mut state = self.state();
        if seq <= state.event_seq {
            return;
        }
        state.event_seq = seq;
        let hit = plan::Hit { site: Site::Process, agent: None, task: None, event_seq: seq };
        if let Some(strike) = state.striker.strike(at, &hit) {
            if let Parameter::Swizzle { .. } = strike.parameter {
                return state.swizzle(at, &strike);
            }
            state.orders.push_back(order(strike, Site::Process));
            self.0.ordered.notify_one();
        }
    }

    fn latency(&self, hit: &Hit<'_>) -> Duration {
        let (Some(task), Some(attempt), false) = (hit.task, hit.attempt, self.0.jitter.is_zero())
        else {
            return Duration::ZERO;
        };
        let entity = u64::from(task.run.0) << 32 | u64::from(task.index.0);
        let n = u64::from(attempt) << 1 | u64::from(hit.site == Place::HandIn);
        let share = self.0.seed.unit(Stream::Latency, entity, n);
        Duration::from_micros((micros(self.0.jitter) as f64 * share) as u64)
    }

    fn stall(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        if self.0.is_virtual {
            return Box::pin(tokio::time::advance(duration));
        }
        Box::pin(async move {
            #[expect(clippy::disallowed_methods, reason = "to block the thread is the fault")]
            std::thread::sleep(duration);
        })
    }
}

impl State {
    /// Returns what an earlier strike still does to this agent.
    fn lasting(&mut self, hit: &Hit<'_>, role: Option<&str>) -> Option<Strike> {
        let agent = hit.agent?;
        match hit.site {
            Place::Assign => {
                let (until, number) = *self.full.get(&agent)?;
                if until <= hit.now {
                    self.full.remove(&agent);
                    return None;
                }
                let name = Kind::FullMailbox.name();
                Some(Strike { continues: Some(number), ..Strike::new(Fault::Refuse, name) })
            }
            Place::BeforePerform | Place::AfterPerform if !self.swizzled.is_empty() => {
                let key = (role?.to_owned(), agent.index);
                let (from, until, fault) = *self.swizzled.get(&key)?;
                if hit.now < from {
                    return None;
                }
                self.swizzled.remove(&key);
                let stall = until.since(hit.now);
                let strike = Strike::new(Fault::Slow(stall), Kind::Swizzle.name());
                (!stall.is_zero()).then_some(Strike { tag: tag(fault), ..strike })
            }
            _ => None,
        }
    }

    /// Plans when each agent of a swizzle stalls and when it goes on.
    fn swizzle(&mut self, at: Timestamp, strike: &plan::Strike) {
        let Parameter::Swizzle { stalled, released, delay, lasts } = &strike.parameter else {
            return;
        };
        let step = |n: usize| *delay * u32::try_from(n).unwrap_or(u32::MAX);
        let first_goes_on = at.after(step(stalled.len()) + *lasts);
        for (n, agent) in stalled.iter().enumerate() {
            let place = released.iter().position(|other| other == agent).unwrap_or(n);
            let window = (at.after(step(n)), first_goes_on.after(step(place)), strike.fault);
            self.swizzled.insert((agent.role.clone(), agent.index), window);
        }
    }

    /// Makes the disk fail, as this fault of the store says.
    fn break_disk(&mut self, order: Order, seed: Seed) {
        let Some(disk) = &self.disk else { return };
        let fault = match order.kind {
            Kind::CommitAfter => DiskFault::AfterSync,
            Kind::CommitUnknown if is_heads(seed, order.fault) => DiskFault::AfterSync,
            // A torn group has a wrong checksum: it is there whole or not at all, as the power cut draws.
            Kind::LostWrites | Kind::TornWrite => DiskFault::Unsynced,
            Kind::DiskFull => DiskFault::Full,
            _ => DiskFault::BeforeWrite,
        };
        disk.fail(fault);
        self.broken = Some(order);
    }
}

fn is_heads(seed: Seed, fault: FaultId) -> bool {
    seed.unit(Stream::Plan, fault.method as u64, fault.strike) < 0.5
}

fn order(strike: plan::Strike, site: Site) -> Order {
    let plan::Strike { fault, kind, parameter } = strike;
    Order { fault, kind, site, parameter }
}

/// Returns the site of a plan that is visited in this place.
fn site(place: Place) -> Site {
    match place {
        Place::Started => Site::Started,
        Place::BeforePerform => Site::BeforePerform,
        Place::InPerform => Site::InPerform,
        Place::AfterPerform => Site::AfterPerform,
        Place::Dropped => Site::Dropped,
        Place::Assign => Site::Assign,
        Place::HandIn => Site::HandIn,
        Place::Commit => Site::Commit,
        Place::Sync => Site::Sync,
    }
}

/// Returns what the runtime does at the site; none for what the world does.
fn fault_at_agent(strike: &plan::Strike) -> Option<Fault> {
    let delay = match &strike.parameter {
        Parameter::Delay(delay) | Parameter::For(delay) => *delay,
        _ => Duration::ZERO,
    };
    Some(match strike.kind {
        Kind::Crash | Kind::StartCrash | Kind::Poison => Fault::Crash,
        Kind::CrashQueued => Fault::CrashQueued,
        Kind::Hang => Fault::Hang,
        Kind::Slow | Kind::SlowSync => Fault::Slow(delay),
        Kind::Stall => Fault::Stall(delay),
        Kind::Exit => Fault::Exit,
        Kind::Drop => Fault::Lose,
        Kind::Duplicate => Fault::Repeat,
        Kind::Delay => Fault::Delay(delay),
        Kind::Reorder => match strike.parameter {
            Parameter::Behind(behind) => Fault::Reorder(behind),
            _ => Fault::Reorder(1),
        },
        Kind::FullMailbox => Fault::Refuse,
        Kind::WrongResult => Fault::WrongResult,
        Kind::CommitBefore
        | Kind::CommitAfter
        | Kind::CommitUnknown
        | Kind::DiskFull
        | Kind::TornWrite
        | Kind::LostWrites
        | Kind::ControllerCrash
        | Kind::Kill
        | Kind::QuotaCut
        | Kind::Swizzle => return None,
    })
}

/// Bits of a tag that hold the number of a strike.
const STRIKE_BITS: u32 = 48;

fn tag(fault: FaultId) -> u64 {
    (fault.method as u64) << STRIKE_BITS | fault.strike
}

fn fault_of(tag: u64) -> FaultId {
    FaultId { method: (tag >> STRIKE_BITS) as usize, strike: tag & ((1 << STRIKE_BITS) - 1) }
}
