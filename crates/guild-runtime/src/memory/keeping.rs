//! Keeps the store well while the memory serves: checkpoints, and what people hear of failures.

use std::sync::Arc;

use guild_core::event::{Cause, Event, Severity};
use guild_memory::checkpoint::{CheckpointError, CheckpointInfo};
use guild_memory::{Memory, Restored};
use tokio::sync::oneshot;

use super::ignore_absent;
use crate::context::Surroundings;
use crate::incidents::Report;
use crate::message::MemoryMessage;

/// Where the result of a checkpoint is awaited.
pub(crate) type CheckpointReply = oneshot::Sender<Result<CheckpointInfo, CheckpointError>>;

/// What is told to whoever asks while the store is being brought back.
pub(super) const SUSPENDED: &str =
    "the store has failed and is being opened again; try again in a moment";

/// Opens an incident for each failure of the store from which it may come back.
pub(super) fn report_troubles(memory: &mut Memory, surroundings: &Surroundings) {
    for error in memory.take_troubles() {
        let action = "opened again; what was not acknowledged is written once more";
        let event = incident(surroundings, "store_failed", error.to_string(), action);
        memory.record(surroundings.clock.now(), event);
    }
}

/// A person must hear that a checkpoint has taken the place of a store: what came after it is lost.
pub(crate) fn report_restore(
    memory: &mut Memory,
    restored: Option<Restored>,
    surroundings: &Surroundings,
) {
    let Some(restored) = restored else { return };
    let why = restored.reason.as_ref().map_or_else(String::new, ToString::to_string);
    let aside = restored.aside.as_deref().map(|aside| aside.display().to_string());
    let action = format!(
        "checkpoint {} has taken its place; what was committed after it is lost, and the damaged \
         store is kept in {}",
        restored.checkpoint.path.display(),
        aside.as_deref().unwrap_or("its directory"),
    );
    let event = incident(surroundings, "store_restored", why, &action);
    memory.record(surroundings.clock.now(), event);
}

/// Has a checkpoint written beside the work; a failure is an incident.
pub(super) fn checkpoint(
    memory: &mut Memory,
    surroundings: &Arc<Surroundings>,
    reply: Option<CheckpointReply>,
) {
    let surroundings = Arc::clone(surroundings);
    memory.checkpoint(move |result| {
        if let Err(error) = &result {
            let action = "the store goes on without it; the checkpoints before are kept";
            let event = incident(&surroundings, "checkpoint_failed", error.to_string(), action);
            surroundings.memory.push(MemoryMessage::Record(event));
        }
        if let Some(reply) = reply {
            ignore_absent(reply.send(result));
        }
    });
}

fn incident(
    surroundings: &Surroundings,
    kind: &'static str,
    message: String,
    action: &str,
) -> Event {
    let report = Report {
        kind,
        severity: Severity::Error,
        cause: Cause::Error,
        message: message.into(),
        location: None,
        agent: None,
        task: None,
        fault: None,
        action: action.into(),
    };
    surroundings.incidents.open(surroundings.clock.now(), report)
}
