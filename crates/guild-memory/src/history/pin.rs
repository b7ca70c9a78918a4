//! Keeps the history from being cut below a version that somebody still needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guild_core::id::CommitVersion;

use super::HistoryError;
use crate::seeded::{self, Bug};

#[derive(Debug, Default)]
struct Pinned {
    /// How often each version is pinned.
    versions: BTreeMap<CommitVersion, u32>,
    /// The history is cut up to here, or about to be.
    floor: CommitVersion,
}

/// The versions that are pinned; every clone is the same list.
#[derive(Clone, Debug, Default)]
pub struct Pins(Arc<Mutex<Pinned>>);

/// Keeps a version, and all after it, readable until it is dropped.
///
/// The history grows beyond its bound meanwhile.
#[derive(Debug)]
pub struct Pin {
    pins: Pins,
    version: CommitVersion,
}

impl Pin {
    /// Returns the version.
    pub fn version(&self) -> CommitVersion {
        self.version
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.lock();
        if let Some(count) = pinned.versions.get_mut(&self.version) {
            *count -= 1;
            if *count == 0 {
                pinned.versions.remove(&self.version);
            }
        }
    }
}

impl From<CommitVersion> for Pins {
    fn from(floor: CommitVersion) -> Self {
        Self(Arc::new(Mutex::new(Pinned { versions: BTreeMap::new(), floor })))
    }
}

impl Pins {
    /// Keeps a version, and all after it, readable until the pin is dropped.
    ///
    /// # Errors
    /// `TooOld`: it is no longer kept.
    pub fn pin(&self, version: CommitVersion) -> Result<Pin, HistoryError> {
        let mut pinned = self.lock();
        if version < pinned.floor {
            return Err(HistoryError::TooOld { asked: version, oldest: pinned.floor });
        }
        *pinned.versions.entry(version).or_default() += 1;
        Ok(Pin { pins: self.clone(), version })
    }

    /// Allows a cut up to a version unless an older one is pinned, and lets nobody pin one any more.
    pub(super) fn raise_floor(&self, floor: CommitVersion) -> bool {
        let mut pinned = self.lock();
        let is_free = seeded::is(Bug::CompactionBelowPin)
            || pinned.versions.first_key_value().is_none_or(|(oldest, _)| floor <= *oldest);
        if is_free {
            pinned.floor = floor;
        }
        is_free
    }

    fn lock(&self) -> MutexGuard<'_, Pinned> {
        // The list is whole after every operation on it, so a poisoned lock holds good data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
