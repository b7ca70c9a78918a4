//! Goes on after an agent has blocked its thread: the others on it live on elsewhere.

use std::sync::atomic::Ordering;

use guild_core::event::{Cause, Event, Names};
use guild_core::id::{AgentId, Incarnation};
use guild_core::incident::{Action, IncidentKind, Report};
use guild_core::planner::Input;
use guild_core::supervision::{Exit, Input as ChildInput, TreeInput, Verdict, fingerprint};
use guild_core::time::Timestamp;

use super::report::Crash;
use super::{Down, SupervisorActor};
use crate::failure::Failure;
use crate::host::Running;
use crate::message::Hang;

impl SupervisorActor {
    /// A thread was fenced, because an agent has held it for so long. It cannot be ended, and what is
    /// in its mailboxes cannot be had back: all its agents get hosts on another thread and a life
    /// after the one that was lost there; the one who is to blame is quarantined.
    pub(super) fn thread_hung(&mut self, now: Timestamp, hang: &Hang) {
        let Hang { thread, agent: guilty, held, .. } = *hang;
        if self.is_ending() {
            return;
        }
        let hung = self.surroundings.stats.threads_hung.fetch_add(1, Ordering::Relaxed) + 1;
        let name = self.surroundings.named(|names| names.agent(guilty));
        tracing::error!(agent = %name, ?held, thread, "an agent blocks its thread");
        if hung > u64::from(self.surroundings.catalog.limits.hung_threads_max) {
            return self.give_up_threads(now, guilty, hung);
        }
        let moved = self.fleet.evacuate(thread);
        let message = format!(
            "it held its thread for {held:.1?} without an await; {} others that lived there go on \
             elsewhere",
            moved.len().saturating_sub(1)
        );
        let reason: Box<str> = format!("its thread is blocked by `{name}`").into();
        for agent in moved {
            match agent == guilty {
                true => self.condemn(now, hang, message.as_str().into()),
                false => self.displace(now, agent, &reason),
            }
        }
    }

    /// A thread that was fenced runs again; nobody lives on it.
    pub(super) fn thread_awake(&mut self, thread: u16) {
        self.surroundings.stats.threads_hung.fetch_sub(1, Ordering::Relaxed);
        self.fleet.threads.retire(thread);
    }

    /// Ends the life that an agent has on a blocked thread; nobody is to blame.
    fn displace(&mut self, now: Timestamp, agent: AgentId, reason: &str) {
        let Some(incarnation) = self.lose_life(now, agent) else {
            return;
        };
        let input = ChildInput::Down { child: agent.index, exit: Exit::Blameless };
        let mut orders = std::mem::take(&mut self.orders);
        let input = TreeInput::Agent { role: agent.role, input };
        if self.tree.step(now, input, 0.0, &mut orders).is_some() {
            self.surroundings.log(Event::AgentStopped {
                agent,
                incarnation,
                reason: reason.into(),
            });
            let (cause, message, stopped) = (Cause::AgentLost, reason.into(), true);
            self.tell_scheduler(Input::AgentDown { agent, incarnation, cause, message, stopped });
        }
        self.obey(now, orders);
    }

    /// Ends the life of the agent that blocks its thread, and puts it into quarantine.
    fn condemn(&mut self, now: Timestamp, hang: &Hang, message: Box<str>) {
        let (agent, fault) = (hang.agent, hang.fault);
        let Some(incarnation) = self.lose_life(now, agent) else {
            return;
        };
        let cause = Cause::Timeout;
        let exit = Exit::Condemned { cause: fingerprint(cause, None, &message) };
        let input = ChildInput::Down { child: agent.index, exit };
        let mut orders = std::mem::take(&mut self.orders);
        let input = TreeInput::Agent { role: agent.role, input };
        let verdict: Option<Verdict> = self.tree.step(now, input, 0.0, &mut orders);
        if verdict.is_some() {
            let failure = Failure { message: message.clone(), ..Failure::revoked(cause) };
            let attempt = hang.attempt.map(Running::attempt);
            self.keep_details(&failure, attempt);
            let crash = Crash { agent, incarnation, failure, attempt, fault };
            self.report_crash(now, crash, verdict);
            let stopped = false;
            self.tell_scheduler(Input::AgentDown { agent, incarnation, cause, message, stopped });
        }
        self.obey(now, orders);
    }

    /// Moves on to the next life of an agent; what the present one still says is stale.
    fn lose_life(&mut self, now: Timestamp, agent: AgentId) -> Option<Incarnation> {
        let child = self.child(agent)?;
        let incarnation = child.incarnation;
        child.incarnation = incarnation.next();
        child.begins_alone = false;
        // A cell that was parked on the blocked thread is not needed: the agent has another host.
        self.down.insert(agent, Down { since: now, delay_us: 0, parked: None });
        Some(incarnation)
    }

    /// Ends the guild: it has lost too many threads to go on in this process.
    fn give_up_threads(&mut self, now: Timestamp, guilty: AgentId, hung: u64) {
        let message = format!("agents block {hung} threads, and no more may be lost");
        let kind = IncidentKind::SupervisorGaveUp;
        let report = Report {
            cause: Cause::Timeout,
            reason: Cause::Timeout.into(),
            agent: self.child(guilty).map(|child| (guilty, child.incarnation)),
            ..Report::of_service(kind, message.as_str(), Action::StopGuild)
        };
        self.surroundings.open_incident(now, report);
        self.fail(&message);
    }
}
