//! Checkpoints, restores and migrations of a store that no guild uses.

use std::path::{Path, PathBuf};

use guild::{checkpoint::CheckpointError, restore as keeper};
use guild_memory::store::Engine;

use crate::args::EngineName;
use crate::command::{check_output, print};
use crate::exit_code::CommandError;

/// Writes a checkpoint.
pub(crate) fn checkpoint(store: &Path, to: Option<PathBuf>) -> Result<(), CommandError> {
    check_output("--to", to.as_deref(), store)?;
    let info = keeper::write_checkpoint(store, to)?;
    print(&format!("{}: {} rows, {} bytes\n", info.path.display(), info.rows, info.bytes))
}

/// Puts a checkpoint in the place of a store.
pub(crate) fn restore(store: &Path, file: &Path) -> Result<(), CommandError> {
    let restored = keeper::restore(store, file)?;
    let kept =
        restored.aside.map(|aside| format!("; what was there is kept in {}", aside.display()));
    print(&format!(
        "{}: restored {} rows from {}{}\n",
        store.display(),
        restored.checkpoint.rows,
        file.display(),
        kept.unwrap_or_default()
    ))
}

/// Copies a store to a new directory.
pub(crate) fn migrate(store: &Path, to: &Path, engine: EngineName) -> Result<(), CommandError> {
    let engine = match engine {
        EngineName::Sled => Engine::Sled,
        EngineName::Redb => Engine::Redb,
    };
    let rows = keeper::migrate(store, to, engine)?;
    let (engine, to) = (engine.name(), to.display());
    print(&format!("{to}: {rows} rows, kept by {engine}; {} is unchanged\n", store.display()))
}

impl From<CheckpointError> for CommandError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Missing { .. }
            | CheckpointError::Foreign { .. }
            | CheckpointError::FormatVersion { .. } => Self::BadInput(error.to_string()),
            error => Self::Store(error.to_string()),
        }
    }
}
