//! Checkpoints, restores and migrations of a store that no guild uses.

use std::path::{Path, PathBuf};

use guild::{checkpoint::CheckpointError, restore as keeper};
use guild_memory::store::Engine;
use serde_json::json;

use crate::args::{EngineName, Format};
use crate::command::{check_output, print};
use crate::exit_code::CommandError;

/// Writes a checkpoint.
pub(crate) fn checkpoint(
    store: &Path,
    to: Option<PathBuf>,
    format: Format,
) -> Result<(), CommandError> {
    check_output("--to", to.as_deref(), store)?;
    let info = keeper::write_checkpoint(store, to)?;
    let (path, rows, bytes) = (info.path, info.rows, info.bytes);
    print(&match format {
        Format::Json => {
            format!("{}\n", json!({ "checkpoint": path, "rows": rows, "bytes": bytes }))
        }
        Format::Table => format!("{}: {rows} rows, {bytes} bytes\n", path.display()),
    })
}

/// Puts a checkpoint in the place of a store.
pub(crate) fn restore(store: &Path, file: &Path, format: Format) -> Result<(), CommandError> {
    let restored = keeper::restore(store, file)?;
    let (rows, aside) = (restored.checkpoint.rows, restored.aside);
    if format == Format::Json {
        let told = json!({ "store": store, "checkpoint": file, "rows": rows, "kept": aside });
        return print(&format!("{told}\n"));
    }
    let kept = aside.map(|aside| format!("; what was there is kept in {}", aside.display()));
    print(&format!(
        "{}: restored {rows} rows from {}{}\n",
        store.display(),
        file.display(),
        kept.unwrap_or_default()
    ))
}

/// Copies a store to a new directory.
pub(crate) fn migrate(
    store: &Path,
    to: &Path,
    engine: EngineName,
    format: Format,
) -> Result<(), CommandError> {
    let engine = match engine {
        EngineName::Sled => Engine::Sled,
        EngineName::Redb => Engine::Redb,
    };
    check_target(to, engine)?;
    let rows = keeper::migrate(store, to, engine)?;
    let engine = engine.name();
    print(&match format {
        Format::Json => {
            format!("{}\n", json!({ "from": store, "to": to, "engine": engine, "rows": rows }))
        }
        Format::Table => {
            let (from, to) = (store.display(), to.display());
            format!("{to}: {rows} rows, kept by {engine}; {from} is unchanged\n")
        }
    })
}

/// Finds out before anything is read or written whether a store can be made in a directory.
fn check_target(to: &Path, engine: Engine) -> Result<(), CommandError> {
    if engine == Engine::Redb && !cfg!(feature = "redb") {
        return Err(CommandError::BadInput(
            "--engine: this guild was built without redb; build it with `--features redb`, or \
             choose sled"
                .to_owned(),
        ));
    }
    let is_free = !to.exists() || to.read_dir().is_ok_and(|mut files| files.next().is_none());
    if is_free {
        return Ok(());
    }
    Err(CommandError::BadInput(format!(
        "--to: {} exists and is not an empty directory; name another one, or remove it",
        to.display()
    )))
}

impl From<CheckpointError> for CommandError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Missing { .. }
            | CheckpointError::Foreign { .. }
            | CheckpointError::Damaged { .. }
            | CheckpointError::Unsound { .. }
            | CheckpointError::FormatVersion { .. } => Self::BadInput(error.to_string()),
            error => Self::Store(error.to_string()),
        }
    }
}
