//! Changes the memory of a store that no guild uses: returns to a version, forgets history.

use std::path::Path;

use guild::{CommitVersion, Durability, KeyRange, Limits, Timestamp};
use guild_memory::{Commits, Memory, OpenError, store as engines};
use serde_json::json;

use crate::args::{Format, RollbackArguments};
use crate::command::print;
use crate::exit_code::CommandError;

/// Gives keys the values of an earlier version.
pub(super) fn rollback(arguments: &RollbackArguments) -> Result<(), CommandError> {
    let store = &arguments.store.store;
    let range = arguments.what.prefix.as_ref().map_or(KeyRange::all(), KeyRange::prefix);
    let to = CommitVersion(arguments.version);
    let (mut memory, now) = open(store)?;
    let before = memory.snapshots().latest();
    let version = memory
        .rollback(now, &range, to)
        .map_err(|error| CommandError::BadInput(format!("{}: {error}", store.display())))?;
    memory.barrier()?;
    let after = memory.snapshots().latest();
    let keys = after.difference(before.version(), version, &range).map_or(0, |keys| keys.len());
    memory.close()?;
    print(&match arguments.format {
        Format::Json => format!("{}\n", json!({ "to": to.0, "version": version.0, "keys": keys })),
        Format::Table if keys == 0 => {
            format!("nothing differs from version {to}; the memory stays at version {version}\n")
        }
        Format::Table => {
            format!("{keys} keys are as they were at version {to}; that is version {version} now\n")
        }
    })
}

/// Forgets the history before a version.
pub(super) fn compact(
    store: &Path,
    before: Option<u64>,
    format: Format,
) -> Result<(), CommandError> {
    let (mut memory, _) = open(store)?;
    let newest = memory.snapshots().latest().version();
    let oldest = memory.forget_before(before.map_or(newest, CommitVersion));
    memory.close()?;
    print(&match format {
        Format::Json => format!("{}\n", json!({ "version": newest.0, "oldest_version": oldest.0 })),
        Format::Table => format!("history goes back to version {oldest}; the newest is {newest}\n"),
    })
}

/// Opens the memory of a store, and returns it with the time.
fn open(store: &Path) -> Result<(Memory, Timestamp), CommandError> {
    let engine = engines::open_existing(store)?;
    let mut limits = Limits::default();
    // The guild that uses the store says how much history it keeps.
    limits.history_bytes_max = usize::MAX;
    let opened = Memory::open(Some(engine), Durability::Disk, limits, Commits::Driven);
    match opened {
        Ok((memory, recovered)) => Ok((memory, recovered.last_at)),
        Err(OpenError::Store(error)) => Err(error.into()),
        Err(error) => Err(CommandError::BadInput(error.to_string())),
    }
}
