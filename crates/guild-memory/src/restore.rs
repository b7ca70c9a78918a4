//! Brings a store back from a checkpoint, and keeps what was there before.

use std::ops::Bound;
use std::ops::ControlFlow::{Break, Continue};
use std::path::{Path, PathBuf};

use guild_core::id::BootEpoch;
use guild_core::limits::Limits;

use crate::checkpoint::{self, CheckpointError, CheckpointInfo, Writer};
use crate::engine;
use crate::key;
use crate::record::BootRow;
use crate::recovery::{Loaded, load, load_without_log};
use crate::rows::{meta, put_meta};
use crate::store::{self, Durability, Engine, Place, Store, StoreError, WriteBatch};

/// Starts of the process that may have come after a checkpoint: their tokens must not come again.
const EPOCHS_SKIPPED: u32 = 1_000;

/// A checkpoint that has taken the place of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The checkpoint.
    pub checkpoint: CheckpointInfo,
    /// Where the old data is kept now; none: there was none.
    pub aside: Option<PathBuf>,
    /// Why the store could not be opened; none: somebody wanted the checkpoint.
    pub reason: Option<StoreError>,
}

/// Writes a checkpoint of a store that no guild has open.
///
/// # Errors
/// See [`CheckpointError`].
pub fn write_checkpoint(
    path: impl AsRef<Path>,
    to: Option<PathBuf>,
) -> Result<CheckpointInfo, CheckpointError> {
    let path = path.as_ref();
    let store = store::open_existing(path)?;
    load_without_log(&*store)?;
    let target = to.map_or_else(|| checkpoint::next_path(path), Ok)?;
    let mut writer = Writer::begin(target)?;
    copy(&*store, &mut writer)?;
    for id in store.large().list()? {
        store.large().get(id)?.iter().try_for_each(|value| writer.large(value))?;
    }
    let info = writer.finish()?;
    store.close()?;
    checkpoint::prune(path)?;
    Ok(info)
}

/// Puts a checkpoint in the place of the store in a directory, which may be absent or empty. The
/// old data is kept in a subdirectory. A crash leaves the old store or the restored one.
///
/// # Errors
/// See [`CheckpointError`]; the store is unchanged then.
pub fn restore(
    path: impl AsRef<Path>,
    checkpoint: impl AsRef<Path>,
) -> Result<Restored, CheckpointError> {
    checkpoint::verify(checkpoint.as_ref())?;
    let place = Place::lock(path.as_ref())?;
    put_back(&place, checkpoint.as_ref(), None)
}

/// Copies the store in a directory to a new one of the given engine, row by row; the old one stays.
/// Returns how many rows there are.
///
/// # Errors
/// See [`StoreError`]; the old store is unchanged.
pub fn migrate(
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
    engine: Engine,
) -> Result<u64, StoreError> {
    let source = store::open_existing(from)?;
    load_without_log(&*source)?;
    let mut target = store::create(to, engine)?;
    let rows = engine::copy_rows(&*source, &mut *target)?;
    for id in source.large().list()? {
        if let Some(value) = source.large().get(id)? {
            target.large().put(id, &value)?;
        }
    }
    target.sync(Durability::Disk)?;
    load_without_log(&*target)?;
    target.close()?;
    source.close()?;
    Ok(rows)
}

fn put_back(
    place: &Place,
    file: &Path,
    reason: Option<StoreError>,
) -> Result<Restored, CheckpointError> {
    let (mut fresh, at) = place.open_beside()?;
    let checkpoint = checkpoint::read(file, |batch| Ok(engine::apply(&mut *fresh, batch)?))?;
    let unsound = |error| CheckpointError::unsound(file, error);
    let boot: BootRow = meta(&*fresh, key::BOOT).map_err(unsound)?;
    let epoch = BootEpoch(boot.epoch.0.saturating_add(EPOCHS_SKIPPED));
    let mut skip = WriteBatch::default();
    put_meta(&mut skip, key::BOOT, &BootRow { epoch });
    fresh.apply(&skip)?;
    fresh.sync(Durability::Disk)?;
    load_without_log(&*fresh).map_err(unsound)?;
    let label = if reason.is_some() { "damaged" } else { "replaced" };
    let aside = place.replace_by(fresh, &at, label)?;
    Ok(Restored { checkpoint, aside, reason })
}

/// An open store, what it holds, and the checkpoint that had to take its place.
type Opened = (Box<dyn Store>, Loaded, Option<Restored>);

/// Opens and reads the store in a directory, or puts the newest checkpoint in its place.
pub(crate) fn open_or_restore(path: &Path, limits: &Limits) -> Result<Opened, StoreError> {
    let damaged = match open_loaded(path, limits) {
        Ok((store, loaded)) => return Ok((store, loaded, None)),
        Err(error @ StoreError::Corrupt { .. }) => error,
        Err(error) => return Err(error),
    };
    for file in checkpoint::list(path).unwrap_or_default().iter().rev() {
        let restored = checkpoint::verify(file)
            .and_then(|_| Ok(Place::lock(path)?))
            .and_then(|place| put_back(&place, file, Some(damaged.clone())));
        match restored {
            Ok(restored) => {
                tracing::error!(
                    error = %damaged, checkpoint = %file.display(), aside = ?restored.aside,
                    "store was damaged; it is kept aside and a checkpoint took its place"
                );
                let (store, loaded) = open_loaded(path, limits)?;
                return Ok((store, loaded, Some(restored)));
            }
            Err(error) => tracing::error!(%error, "a checkpoint cannot be used"),
        }
    }
    Err(damaged)
}

fn open_loaded(path: &Path, limits: &Limits) -> Result<(Box<dyn Store>, Loaded), StoreError> {
    let store = store::open(path)?;
    let loaded = load(&*store, limits)?;
    Ok((store, loaded))
}

/// Writes all rows in order.
fn copy(store: &dyn Store, into: &mut Writer) -> Result<(), CheckpointError> {
    let mut result = Ok(());
    store.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
        result = into.row(key, value);
        if result.is_ok() { Continue(()) } else { Break(()) }
    })?;
    result
}
