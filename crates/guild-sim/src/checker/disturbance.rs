//! I11: agents that no fault selects are not disturbed: they neither crash nor are quarantined.
//!
//! Whom a plan selects is not in the log, so this is judged for whoever knows it.

use std::collections::BTreeMap;

use guild_core::event::LineEvent;

use super::board::Board;
use super::check::{Check, End, Seen};
use super::findings::Findings;
use super::verdict::Invariant::I11;
use super::verdict::Violation;

/// Judges the blast radius.
#[derive(Debug, Default)]
pub(super) struct Disturbance {
    /// How each agent was disturbed first.
    first: BTreeMap<String, Violation>,
}

impl Check for Disturbance {
    fn see(&mut self, seen: &Seen<'_>, _: &Board, findings: &mut Findings) {
        let (agent, what) = match seen.event {
            LineEvent::AgentCrashed { agent, .. } => (agent, "crashes"),
            LineEvent::AgentQuarantined { agent, .. } => (agent, "is quarantined"),
            _ => return,
        };
        if !self.first.contains_key(&**agent) {
            let message = format!("agent `{agent}` {what}, and no fault may strike it");
            self.first.insert(agent.to_string(), findings.suspect(message));
        }
    }

    fn end(&mut self, end: &End<'_>, board: &Board, findings: &mut Findings) {
        let Some(strikable) = &end.knowledge.strikable else {
            return findings.cannot_judge(I11, "nobody told which agents a fault may strike");
        };
        board.agents().iter().for_each(|_| findings.check(I11));
        for (agent, violation) in std::mem::take(&mut self.first) {
            if !strikable.contains(&agent) {
                findings.violate_at(I11, violation);
            }
        }
    }
}
