//! Keeps large values as files beside the rows, named by what is in them.
//!
//! A row refers to its value by a SHA-256, so equal values are one file, a file never changes, and a
//! damaged one is noticed. A file is synced before a row refers to it; it is removed only after the
//! rows that referred to it are durably gone, and what a crash leaves over is removed at the next
//! open.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::directory::{Directory, sync_path};
use super::{LargeValues, StoreError};

/// Directory of the files, within that of the store.
pub(super) const DIRECTORY: &str = "values";

/// Names a large value by its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ValueId([u8; 32]);

impl ValueId {
    /// Returns the name of a value.
    pub fn of(value: &[u8]) -> Self {
        Self(Sha256::digest(value).into())
    }

    /// Reads the name of a file; none: it is no such name.
    fn parse(name: &str) -> Option<Self> {
        let mut id = [0; 32];
        if name.len() != 64 || !name.is_ascii() {
            return None;
        }
        for (place, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&name[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl LargeValues for Directory {
    fn put(&self, id: ValueId, value: &[u8]) -> Result<(), StoreError> {
        let store = self.path();
        put(store, id, value, sync_path)
            .map_err(|error| StoreError::from_io(store, "write a large value", &error))
    }

    fn get(&self, id: ValueId) -> Result<Option<Vec<u8>>, StoreError> {
        let store = self.path();
        match fs::read(path(store, id)) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::from_io(store, "read a large value", &error)),
        }
    }

    fn remove(&self, id: ValueId) -> Result<(), StoreError> {
        let store = self.path();
        match fs::remove_file(path(store, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::from_io(store, "remove a large value", &error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what a crash has left of a value that was being written, too.
    fn list(&self) -> Result<Vec<ValueId>, StoreError> {
        let store = self.path();
        let failed = |error: io::Error| StoreError::from_io(store, "list the large values", &error);
        let entries = match fs::read_dir(store.join(DIRECTORY)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            match name.to_str().and_then(ValueId::parse) {
                Some(id) => found.push(id),
                None if entry.path().extension().is_some_and(|extension| extension == "draft") => {
                    fs::remove_file(entry.path()).map_err(failed)?;
                }
                None => {}
            }
        }
        found.sort();
        Ok(found)
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        let store = self.path();
        let sizes = self.list()?.into_iter().map(|id| Ok(fs::metadata(path(store, id))?.len()));
        let sum: io::Result<u64> = sizes.sum();
        sum.map_err(|error| StoreError::from_io(store, "measure the large values", &error))
    }
}

/// Stores a value, durably on return. That a name is there does not say that it is there durably: an
/// earlier try may have failed between the two, so both directories are synced whatever is there.
fn put(
    store: &Path,
    id: ValueId,
    value: &[u8],
    sync: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let directory = store.join(DIRECTORY);
    let path = directory.join(id.to_string());
    if !path.exists() {
        fs::create_dir(&directory).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(error),
        })?;
        let draft = path.with_extension("draft");
        fs::write(&draft, value)?;
        sync(&draft)?;
        fs::rename(&draft, &path)?;
    }
    sync(&directory)?;
    sync(store)
}

fn path(store: &Path, id: ValueId) -> PathBuf {
    store.join(DIRECTORY).join(id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_content_and_drafts_are_not_values() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::lock(folder.path(), false).unwrap();
        let (one, other) = (ValueId::of(b"one"), ValueId::of(b"other"));
        assert_eq!(
            one.to_string(),
            "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        );
        assert_eq!(store.list().unwrap(), []);
        store.put(one, b"one").unwrap();
        store.put(one, b"one").unwrap();
        fs::write(store.path().join("values/half.draft"), "ha").unwrap();
        assert_eq!(store.list().unwrap(), [one]);
        assert!(!store.path().join("values/half.draft").exists());
        assert_eq!(store.get(one).unwrap(), Some(b"one".to_vec()));
        assert_eq!(store.get(other).unwrap(), None);
        store.remove(other).unwrap();
        store.remove(one).unwrap();
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn a_name_whose_sync_failed_is_synced_by_the_next_try() {
        let folder = tempfile::tempdir().unwrap();
        let (store, id) = (folder.path(), ValueId::of(b"one"));
        let values = store.join(DIRECTORY);
        let names = [values.join(id.to_string()).with_extension("draft"), values, store.into()];
        for broken in 0..names.len() {
            let failed = put(store, id, b"one", |path| match path == names[broken] {
                true => Err(io::ErrorKind::Other.into()),
                false => Ok(()),
            });
            let synced = std::cell::RefCell::new(Vec::new());
            put(store, id, b"one", |path| {
                synced.borrow_mut().push(path.to_owned());
                Ok(())
            })
            .unwrap();
            assert!(failed.is_err(), "{broken}");
            assert!(synced.into_inner().ends_with(&names[1..]), "{broken}");
            fs::remove_dir_all(&names[1]).unwrap();
        }
    }
}
