//! I12: after the quiet phase begins everything ends in time.
//!
//! Time is what is left to do: for each role its work over its agents, and the longest chain, as
//! lists are scheduled (Graham 1966); plus what detection, backoff and restarts cost, each counted
//! when the log shows it: a failed attempt with its time and its backoff, and the first restart or
//! quarantine of an agent. Who is down when the phase begins takes no part in the work, and who waits
//! for its next attempt then may go on waiting. So a fault that is permanent costs what it costs, and something that
//! nobody ever notices costs nothing and is found. Tasks may take longer than was expected of them
//! by as much as any task of the log did; and what follows from a completion waits for the store, as
//! long as whoever knows the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guild_core::event::LineEvent;
use guild_core::time::micros;

use super::board::{Board, Run, Status, Task};
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::knowledge::Knowledge;
use super::verdict::Invariant::I12;

/// Judges the quiet phase.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    quiet: Option<Quiet>,
    /// By how much a task took longer than expected at most.
    overrun_us: u64,
    /// When the last run ended after the quiet phase began, and how long everything may have taken.
    ended: Option<(u64, Option<Allowed>)>,
}

/// How long everything may take.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    us: u64,
    /// How often something may have to wait for the store.
    steps: u64,
}

impl Allowed {
    fn with_store(self, knowledge: &Knowledge) -> u64 {
        let store = micros(knowledge.sync).saturating_mul(2).saturating_mul(self.steps);
        self.us.saturating_add(store).saturating_add(micros(knowledge.sync_slow))
    }
}

/// What was left to do when the quiet phase began.
#[derive(Debug, Default)]
struct Quiet {
    since_us: u64,
    /// Work and tasks of each role.
    roles: BTreeMap<String, (u64, u64)>,
    /// Work and tasks of the longest chain.
    chain: (u64, u64),
    /// Agents of each role that are up; those in quarantine take no part.
    up: BTreeMap<String, u64>,
    /// The longest time that a task has still to wait for its next attempt.
    backoff_us: u64,
    /// Time that failures since then have cost.
    lost_us: u64,
    /// Agents whose first restart was counted.
    restarted: BTreeSet<String>,
    /// Whether tasks share quotas, so that they may have to go one after the other.
    is_serial: bool,
    /// Whether tasks wait for tokens of a rate.
    has_rates: bool,
}

impl Check for Liveness {
    fn see(&mut self, seen: &Seen<'_>, board: &Board, findings: &mut Findings) {
        match seen.event {
            LineEvent::PhaseStarted { phase } if &**phase == "quiet" => {
                self.quiet = Some(Quiet::begin(board, seen.at_us));
            }
            LineEvent::GuildStarted { .. } if self.quiet.is_some() => {
                self.quiet = Some(Quiet::begin(board, seen.at_us));
            }
            LineEvent::TaskCompleted { .. } => {
                if let Some((task, lease)) = seen.task().and_then(|task| Some((task, task.lease?)))
                {
                    let took = seen.at_us.saturating_sub(lease.since_us);
                    let over = took.saturating_sub(micros(task.terms.expected));
                    self.overrun_us = self.overrun_us.max(over);
                }
            }
            LineEvent::RunEnded { .. } => {
                findings.check(I12);
                if self.quiet.is_some() && board.runs().count() <= 1 {
                    self.ended = Some((seen.at_us, self.allowed(board)));
                }
            }
            _ => {
                if let Some(quiet) = &mut self.quiet {
                    quiet.see(seen);
                }
            }
        }
    }

    fn end(&mut self, end: &End<'_>, board: &Board, findings: &mut Findings) {
        let Some(quiet) = &self.quiet else {
            findings.forget(I12);
            return findings.cannot_judge(I12, "the log has no quiet phase");
        };
        let known = end.knowledge.quiet_within.map(micros);
        let with_store = |allowed: Option<Allowed>| {
            known.or_else(|| allowed.map(|allowed| allowed.with_store(end.knowledge)))
        };
        let is_open = board.runs().next().is_some();
        let (at, allowed) = match (is_open, self.ended) {
            (false, Some((at, allowed))) => (at, with_store(allowed)),
            // Everything had ended when the quiet phase began.
            (false, None) => (quiet.since_us, Some(0)),
            (true, _) => (end.at_us, with_store(self.allowed(board))),
        };
        let Some(allowed) = allowed else {
            findings.forget(I12);
            return findings
                .cannot_judge(I12, "tasks wait for tokens of a rate, or have no agents");
        };
        let took = at.saturating_sub(quiet.since_us);
        if took > allowed {
            findings.violate(I12, || {
                let (took, allowed) = (Duration::from_micros(took), Duration::from_micros(allowed));
                let what = if is_open { "not everything has ended" } else { "everything ended" };
                format!("{what} {took:?} after the quiet phase began, where {allowed:?} suffice")
            });
        } else if is_open {
            findings.cannot_judge(I12, "not all runs have ended in the log");
        }
    }
}

impl Liveness {
    /// Returns how long everything may take from the beginning of the quiet phase on.
    fn allowed(&self, board: &Board) -> Option<Allowed> {
        let quiet = self.quiet.as_ref()?;
        if quiet.has_rates {
            return None;
        }
        let over = self.overrun_us;
        let with_overrun =
            |(work, tasks): (u64, u64)| work.saturating_add(tasks.saturating_mul(over));
        let lost_us = quiet.lost_us.saturating_add(quiet.backoff_us);
        let mut allowed = with_overrun(quiet.chain).saturating_add(lost_us);
        // The end of the run is a step, too.
        let mut steps = quiet.chain.1.saturating_add(1);
        for (role, left) in &quiet.roles {
            let agents = board.life.as_ref().and_then(|life| life.roles.get(role)).copied()?;
            let up = quiet.up.get(role).copied().unwrap_or(0).clamp(1, u64::from(agents).max(1));
            let agents = if quiet.is_serial { 1 } else { up };
            let share = with_overrun(*left).checked_div(agents)?;
            // Times are whole microseconds.
            allowed = allowed.saturating_add(share).saturating_add(1);
            steps = steps.saturating_add(left.1.div_ceil(agents));
        }
        Some(Allowed { us: allowed, steps })
    }
}

impl Quiet {
    fn begin(board: &Board, at_us: u64) -> Self {
        let mut quiet = Self { since_us: at_us, ..Self::default() };
        for agent in board.agents().iter().filter(|agent| agent.is_up) {
            *quiet.up.entry(board.roles()[agent.role].name.clone()).or_default() += 1;
        }
        for run in board.runs() {
            run.open_tasks().for_each(|task| quiet.add(task, board));
            let (work, tasks) = longest_chain(run);
            quiet.chain.0 = quiet.chain.0.max(work);
            quiet.chain.1 = quiet.chain.1.saturating_add(tasks);
        }
        quiet
    }

    fn add(&mut self, task: &Task, board: &Board) {
        let role = self.roles.entry(task.role.to_string()).or_default();
        role.0 = role.0.saturating_add(micros(task.terms.expected));
        role.1 += 1;
        if let Status::Backoff(Some(retry_at)) = task.status {
            self.backoff_us = self.backoff_us.max(retry_at.saturating_sub(self.since_us));
        }
        if task.parent.is_some() {
            // Whoever waits for its parent waits for it too: at worst all go one after the other.
            self.lost_us = self.lost_us.saturating_add(micros(task.terms.expected));
            self.chain.1 += 1;
        }
        self.is_serial |= !task.terms.quotas.is_empty();
        self.has_rates |= task
            .terms
            .quotas
            .iter()
            .any(|(name, _)| board.quotas.get(name).is_some_and(super::board::Quota::is_rate));
    }

    /// Counts what happens in the quiet phase and costs time.
    fn see(&mut self, seen: &Seen<'_>) {
        let at = seen.at_us;
        let cost = match seen.event {
            LineEvent::TaskFailed { retry_at_us, .. } => {
                let since =
                    seen.task().and_then(|task| task.lease).map_or(at, |lease| lease.since_us);
                let backoff = retry_at_us.map_or(0, |retry| retry.saturating_sub(at));
                at.saturating_sub(since).saturating_add(backoff)
            }
            LineEvent::TaskAdded { terms, .. } => {
                // It may come after everything else.
                self.chain.1 += 1;
                micros(terms.expected)
            }
            LineEvent::AgentRestarted { agent, delay_us, .. }
                if self.restarted.insert(agent.to_string()) =>
            {
                *delay_us
            }
            LineEvent::AgentQuarantined { until_us: Some(until), .. } => until.saturating_sub(at),
            _ => 0,
        };
        self.lost_us = self.lost_us.saturating_add(cost);
    }
}

/// Returns the work and the number of the tasks of the longest chains that are left.
fn longest_chain(run: &Run) -> (u64, u64) {
    let tasks = run.tasks();
    let mut waits: Vec<u32> = tasks.iter().map(|task| task.pending).collect();
    let mut chains = vec![(0_u64, 0_u64); tasks.len()];
    let mut next: Vec<usize> = (0..tasks.len()).filter(|no| waits[*no] == 0).collect();
    let mut longest = (0, 0);
    while let Some(no) = next.pop() {
        let task = &tasks[no];
        let own = if task.is_over() { (0, 0) } else { (micros(task.terms.expected), 1) };
        let chain = (chains[no].0.saturating_add(own.0), chains[no].1 + own.1);
        longest = (longest.0.max(chain.0), longest.1.max(chain.1));
        for follower in &task.followers {
            let at = *follower as usize;
            chains[at] = (chains[at].0.max(chain.0), chains[at].1.max(chain.1));
            waits[at] = waits[at].saturating_sub(1);
            if waits[at] == 0 {
                next.push(at);
            }
        }
    }
    longest
}
