//! Writes what becomes of agents, roles and dead letters.

use super::super::{Event, kind};
use super::Line;

impl Line<'_> {
    pub(super) fn agent_event(&mut self, event: &Event) {
        match event {
            Event::AgentStarted { agent, role, incarnation } => {
                self.kind(kind::AGENT_STARTED);
                self.agent(*agent);
                let names = self.names;
                self.text(key!("role"), names.role(*role));
                self.number(key!("incarnation"), incarnation.0);
            }
            Event::AgentCrashed { agent, incarnation, cause, message, task } => {
                self.kind(kind::AGENT_CRASHED);
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.json(key!("cause"), cause);
                self.text(key!("message"), message);
                if let Some(task) = task {
                    self.task(key!("task"), *task);
                    self.run(task.run);
                }
            }
            Event::AgentRestarted { agent, incarnation, delay_us } => {
                self.kind(kind::AGENT_RESTARTED);
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.number(key!("delay_us"), *delay_us);
            }
            Event::AgentQuarantined { agent, reason, until } => {
                self.kind(kind::AGENT_QUARANTINED);
                self.agent(*agent);
                self.text(key!("reason"), reason);
                self.optional(key!("until_us"), until.map(|until| until.0));
            }
            Event::AgentReleased { agent, reason } => {
                self.kind(kind::AGENT_RELEASED);
                self.agent(*agent);
                self.text(key!("reason"), reason);
                self.optional(key!("until_us"), None);
            }
            Event::AgentStopped { agent, incarnation, reason } => {
                self.kind(kind::AGENT_STOPPED);
                self.agent(*agent);
                self.number(key!("incarnation"), incarnation.0);
                self.text(key!("reason"), reason);
            }
            Event::ThreadHeld { agent, held_us } => {
                self.kind(kind::THREAD_HELD);
                self.agent(*agent);
                self.number(key!("held_us"), *held_us);
            }
            Event::RoleLost { role, reason } => {
                self.kind(kind::ROLE_LOST);
                let names = self.names;
                self.text(key!("role"), names.role(*role));
                self.text(key!("reason"), reason);
            }
            _ => unreachable!("only events of agents come here"),
        }
    }

    pub(super) fn letter(&mut self, event: &Event) {
        match event {
            Event::LetterRetried { task, run } => {
                self.kind(kind::LETTER_RETRIED);
                self.of_task(*task);
                self.key(key!("retry_run"));
                let names = self.names;
                names.write_quoted_run(*run, self.text);
            }
            Event::LetterDiscarded { task, note } => {
                self.kind(kind::LETTER_DISCARDED);
                self.of_task(*task);
                self.text(key!("note"), note);
            }
            _ => unreachable!("only events of dead letters come here"),
        }
    }
}
