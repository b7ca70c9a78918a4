//! Keeps the store well while the memory serves: checkpoints, and what people hear of failures.

use std::sync::Arc;

use guild_core::incident::{Action, IncidentKind, Report};
use guild_core::time::Timestamp;
use guild_memory::checkpoint::{CheckpointError, CheckpointInfo};
use guild_memory::{Memory, Restored};
use tokio::sync::oneshot;

use super::ignore_absent;
use crate::context::Surroundings;

/// Where the result of a checkpoint is awaited.
pub(crate) type CheckpointReply = oneshot::Sender<Result<CheckpointInfo, CheckpointError>>;

/// What is told to whoever asks while the store is being brought back.
pub(super) const SUSPENDED: &str =
    "the store has failed and is being opened again; try again in a moment";

/// Opens an incident for each failure of the store from which it may come back, and ends them when
/// it has; returns whether one is open.
pub(super) fn report_troubles(
    now: Timestamp,
    memory: &mut Memory,
    surroundings: &Surroundings,
    was_in_trouble: bool,
) -> bool {
    let troubles = memory.take_troubles();
    if troubles.is_empty() && !was_in_trouble {
        return false;
    }
    let mut is_in_trouble = was_in_trouble;
    for error in troubles {
        is_in_trouble = true;
        let (kind, action) = (IncidentKind::StoreFailed, Action::ReopenStore);
        let report = Report::of_service(kind, error.to_string(), action);
        surroundings.incidents.open(now, report).for_each(|event| memory.record(now, event));
    }
    if is_in_trouble && !memory.is_suspended() {
        let recovered = surroundings.incidents.mended(now, IncidentKind::StoreFailed);
        recovered.into_iter().for_each(|event| memory.record(now, event));
        is_in_trouble = false;
    }
    is_in_trouble
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
    let action = Action::RestoreStore {
        checkpoint: restored.checkpoint.path.display().to_string().into(),
        kept: aside.as_deref().unwrap_or("its directory").into(),
    };
    let now = surroundings.clock.now();
    let report = Report::of_service(IncidentKind::StoreRestored, why, action);
    surroundings.incidents.open(now, report).for_each(|event| memory.record(now, event));
}

/// Has a checkpoint written beside the work; a failure is an incident.
pub(super) fn checkpoint(
    memory: &mut Memory,
    surroundings: &Arc<Surroundings>,
    reply: Option<CheckpointReply>,
) {
    let surroundings = Arc::clone(surroundings);
    memory.checkpoint(move |result| {
        let (now, kind) = (surroundings.clock.now(), IncidentKind::CheckpointFailed);
        match &result {
            Ok(_) => {
                let mended = surroundings.incidents.mended(now, kind);
                mended.into_iter().for_each(|event| surroundings.log(event));
            }
            Err(error) => {
                let report = Report::of_service(kind, error.to_string(), Action::SkipCheckpoint);
                surroundings.open_incident(now, report);
            }
        }
        if let Some(reply) = reply {
            ignore_absent(reply.send(result));
        }
    });
}
