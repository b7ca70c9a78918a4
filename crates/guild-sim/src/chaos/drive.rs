//! Drives a world through a run and carries out what strikes the process, the disk and the quotas.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use guild_core::draw::{Seed, Stream};
use guild_core::graph::Graph;
use guild_core::quota::QuotaSpec;
use guild_core::time::Timestamp;
use guild_memory::store::Crash;
use guild_runtime::{RunError, RunReport, UnderWay};

use super::notes::{Notes, QUIET};
use super::point::{Order, PlanFaults};
use crate::plan::{Drawn, FaultId, Kind, Parameter};
use crate::world::{RunName, World, WorldError};

/// A run in a world that faults strike.
pub(super) struct Drive<'a> {
    world: World,
    point: PlanFaults,
    /// What the log shows.
    notes: Notes,
    seed: Seed,
    quotas: &'a [(String, QuotaSpec)],
    /// What is to be done when; what is due at one time, in the order in which it was planned.
    schedule: BTreeMap<(Timestamp, u32), Action>,
    planned: u32,
    /// The permits of quotas that are cut now.
    cuts: BTreeMap<String, u32>,
    /// Whether the controller is about to panic.
    controller_crashes: bool,
    lives: u32,
    run: Option<RunName>,
    /// What was carried out and may not be in the log: a process that dies takes with it what it has
    /// not written.
    untold: Vec<Order>,
    /// Whether the quiet phase has begun.
    quiet: bool,
    /// Whether the run is to end.
    cancelled: bool,
}

/// What is done at its time.
#[derive(Clone, Debug)]
enum Action {
    /// The quiet phase begins.
    Quiet,
    /// The run is cancelled.
    Cancel,
    /// A quota gets its permits back.
    Restore(String, u32),
}

/// Why a run came to no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The time is over.
    Late,
    /// The guild ended by itself.
    Failed(String),
    /// The guild does not start again on its disk.
    Lost(String),
    /// The graph was refused.
    Refused(String),
}

enum Woken {
    Ended(Result<Arc<RunReport>, RunError>),
    Ordered,
    Due,
}

/// Lives of one run; more are no recovery.
const LIVES_MAX: u32 = 1_000;

impl<'a> Drive<'a> {
    /// Begins the chaos phase in a world.
    pub(super) fn new(
        world: World,
        point: PlanFaults,
        notes: Notes,
        drawn: &Drawn,
        quotas: &'a [(String, QuotaSpec)],
    ) -> Self {
        world.guild().record_phase("chaos");
        let now = world.now();
        let quiet = ((now.after(drawn.quiet.after), 0), Action::Quiet);
        let cancel = drawn.cancel_at.map(|at| ((now.after(at), 1), Action::Cancel));
        Self {
            world,
            point,
            notes,
            seed: drawn.seed,
            quotas,
            schedule: std::iter::once(quiet).chain(cancel).collect(),
            planned: 2,
            cuts: BTreeMap::new(),
            controller_crashes: false,
            lives: 0,
            run: None,
            untold: Vec::new(),
            quiet: false,
            cancelled: false,
        }
    }

    /// Lets the world become quiet and ends it in order where it still obeys; returns it with what
    /// was left over.
    pub(super) fn over(mut self, obeys: bool) -> (World, Option<BTreeMap<String, u64>>) {
        if !obeys {
            return (self.world, None);
        }
        if let Err(error) = self.world.run_until_quiet() {
            tracing::debug!(%error, "a world did not become quiet");
        }
        let guild = self.world.guild().clone();
        let under_way = self.world.block_on(async move { guild.under_way().await });
        self.world.end();
        let leftovers = under_way.map(|left: UnderWay| {
            let counts = [
                ("runs", left.runs),
                ("attempts", left.attempts),
                ("commits", left.commits),
                ("messages", left.messages),
                ("timers", left.timers),
                ("waiting tasks", left.waiting),
                ("undecided failures", left.failures),
            ];
            counts.into_iter().map(|(what, count)| (what.to_owned(), count as u64)).collect()
        });
        (self.world, leftovers)
    }

    /// Submits the graph and lets time pass until its run has ended, so long at most.
    pub(super) fn run(&mut self, graph: Graph, limit: Duration) -> Result<(), Stop> {
        let until = self.world.now().after(limit);
        let run = self.submit(graph)?;
        self.run = Some(run.clone());
        loop {
            let next = self.schedule.first_key_value().map_or(until, |((at, _), _)| *at);
            match self.wait(&run, next.min(until))? {
                Woken::Ended(Ok(_)) => return Ok(()),
                Woken::Ended(Err(error)) => self.recover(&error.to_string())?,
                Woken::Ordered => {
                    while let Some(order) = self.point.take_order() {
                        self.carry_out(order)?;
                    }
                }
                Woken::Due if self.world.now() >= until => return Err(Stop::Late),
                Woken::Due => self.do_what_is_due(),
            }
        }
    }

    fn submit(&mut self, graph: Graph) -> Result<RunName, Stop> {
        loop {
            match self.world.submit(graph.clone()) {
                Ok(run) => return Ok(run),
                Err(WorldError::Submit(guild_runtime::SubmitError::Unavailable(why))) => {
                    self.recover(&why)?;
                }
                Err(error) => return Err(Stop::Refused(error.to_string())),
            }
        }
    }

    /// Lets time pass until something is to be done.
    fn wait(&mut self, run: &RunName, until: Timestamp) -> Result<Woken, Stop> {
        let Some(run) = self.world.guild().run(&run.to_string()) else {
            return Err(Stop::Lost(format!("the run `{run}` is no longer known")));
        };
        let (point, timer) = (self.point.clone(), self.world.timer(until.since(self.world.now())));
        Ok(self.world.block_on(async move {
            let (mut ended, mut ordered, mut timer) =
                (pin!(run.wait()), pin!(point.ordered()), pin!(timer));
            poll_fn(|cx| {
                if let Poll::Ready(report) = ended.as_mut().poll(cx) {
                    return Poll::Ready(Woken::Ended(report));
                }
                if ordered.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Woken::Ordered);
                }
                timer.as_mut().poll(cx).map(|()| Woken::Due)
            })
            .await
        }))
    }

    fn do_what_is_due(&mut self) {
        let now = self.world.now();
        while let Some(entry) = self.schedule.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Action::Quiet => {
                    self.quiet = true;
                    self.world.guild().record_phase(QUIET);
                }
                Action::Cancel => {
                    self.cancelled = true;
                    self.cancel();
                }
                Action::Restore(quota, permits) => {
                    self.cuts.remove(&quota);
                    self.world.guild().set_permits(&quota, permits);
                }
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Result<(), Stop> {
        match (order.kind, &order.parameter) {
            (Kind::ControllerCrash, _) => {
                // A guild whose disk has failed is dying already.
                if let Some(broken) = self.point.take_broken() {
                    self.revive(broken)?;
                }
                let number = self.world.guild().inject_controller_crash();
                self.point.note(number, order.fault);
                self.untold.push(order);
                self.controller_crashes = true;
            }
            (Kind::QuotaCut, Parameter::Cut { quota, left_percent, lasts }) => {
                self.tell(&order);
                self.untold.push(order.clone());
                let until = self.world.now().after(*lasts);
                for (name, spec) in self.quotas {
                    let QuotaSpec::Permits(permits) = spec else { continue };
                    if quota.as_ref().is_some_and(|quota| quota != name) {
                        continue;
                    }
                    let left = u64::from(*permits) * u64::from(*left_percent) / 100;
                    self.cuts.insert(name.clone(), u32::try_from(left).unwrap_or(u32::MAX));
                    let restore = Action::Restore(name.clone(), *permits);
                    self.schedule.insert((until, self.planned), restore);
                    self.planned += 1;
                }
                self.cut_quotas();
            }
            _ => self.revive(order)?,
        }
        Ok(())
    }

    fn cut_quotas(&self) {
        for (quota, permits) in &self.cuts {
            self.world.guild().set_permits(quota, *permits);
        }
    }

    fn cancel(&self) {
        let name = self.run.iter().map(ToString::to_string);
        name.filter_map(|name| self.world.guild().run(&name)).for_each(|run| run.cancel());
    }

    /// Tells a guild that has started again what it cannot know, if it knows what it must: every
    /// completion that was told.
    fn go_on(&mut self) -> Result<(), Stop> {
        let (told, kept) = (self.notes.version(), self.world.snapshot().version());
        if kept < told {
            return Err(Stop::Lost(format!(
                "a completion was acknowledged as version {told} of the memory, which goes back to \
                 version {kept} after a recovery"
            )));
        }
        let notes = &self.notes;
        self.untold.retain(|order| !notes.show(order.fault));
        self.untold.iter().for_each(|order| self.tell(order));
        if self.quiet && !self.notes.show_quiet() {
            self.world.guild().record_phase(QUIET);
        }
        if self.cancelled {
            self.cancel();
        }
        self.cut_quotas();
        Ok(())
    }

    /// Starts the guild again after it has failed.
    fn recover(&mut self, why: &str) -> Result<(), Stop> {
        let controller_crashes = std::mem::take(&mut self.controller_crashes);
        match self.point.take_broken() {
            Some(order) => self.revive(order),
            None if controller_crashes => {
                self.count_life()?;
                match self.world.restart() {
                    Ok(()) => self.go_on(),
                    Err(error) => self.again(error),
                }
            }
            None => Err(Stop::Failed(why.to_owned())),
        }
    }

    /// Ends the process as this fault does, starts it again and tells of the fault: what the
    /// process would have said of it has died with it.
    fn revive(&mut self, order: Order) -> Result<(), Stop> {
        self.count_life()?;
        let (crash, downtime) = self.crash_of(&order);
        self.untold.push(order);
        // What the disk failed with before the process heard of it ends with the process.
        self.untold.extend(self.point.take_broken());
        match self.world.crash_for(crash, downtime) {
            // The disk may have failed again since: whoever waits for the run will hear of it.
            Ok(()) => {
                self.controller_crashes = false;
                self.go_on()
            }
            Err(error) => self.again(error),
        }
    }

    fn again(&mut self, error: WorldError) -> Result<(), Stop> {
        match (error, self.point.take_broken()) {
            (WorldError::Submit(_), Some(order)) => self.revive(order),
            (error, _) => Err(Stop::Lost(error.to_string())),
        }
    }

    fn count_life(&mut self) -> Result<(), Stop> {
        self.lives += 1;
        match self.lives > LIVES_MAX {
            true => Err(Stop::Failed(format!("it died {LIVES_MAX} times"))),
            false => Ok(()),
        }
    }

    fn crash_of(&self, order: &Order) -> (Crash, Duration) {
        let FaultId { method, strike } = order.fault;
        let unsynced = self.world.unsynced_batches();
        let draw = self.seed.bits(Stream::Sync, method as u64, strike);
        let kept = usize::try_from(draw).unwrap_or(usize::MAX) % (unsynced + 1);
        match (order.kind, &order.parameter) {
            (Kind::LostWrites | Kind::TornWrite, _) => {
                (Crash::PowerCut { batches_kept: kept }, Duration::ZERO)
            }
            (Kind::DiskFull, Parameter::For(lasts)) => (Crash::Kill, *lasts),
            _ => (Crash::Kill, Duration::ZERO),
        }
    }

    fn tell(&self, order: &Order) {
        let number = self.world.guild().record_fault(order.kind.name(), order.site.name());
        self.point.note(number, order.fault);
    }
}
