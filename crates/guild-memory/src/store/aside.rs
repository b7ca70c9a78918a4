//! Keeps data aside that other data takes the place of.
//!
//! It gets second names in a directory of its own before the switch, whose name says which place the switch
//! is to. A crash before the switch leaves the old data where it was, and that directory is removed; after
//! it, the directory is whole, and gets its lasting name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::directory::{Directory, number, remove_all, sync_file, sync_path};
use super::{Engine, Store, StoreError, large};

/// Stands between the lasting name and that of the place that takes over.
const FOR: &str = ".for-";

/// The locked directory of a store whose data is to be replaced; the data is not opened.
#[derive(Debug)]
pub(crate) struct Place(Directory);

impl Place {
    /// Locks a directory; makes it when it is absent or empty.
    pub(crate) fn lock(path: &Path) -> Result<Self, StoreError> {
        Ok(Self(Directory::lock(path, false)?))
    }

    /// Opens an empty store beside the current data, whatever that is, and says where.
    pub(crate) fn open_beside(&self) -> Result<(Box<dyn Store>, PathBuf), StoreError> {
        let engine = Engine::of(&self.0.current()?);
        let place = self.0.new_place()?;
        Ok((engine.open_at(self.0.clone(), place.clone())?, place))
    }

    /// Closes a store from [`open_beside`](Self::open_beside) and makes it the current one; returns
    /// where the old data is kept, if there was any. A crash leaves the old data in its place, or the new
    /// one there and the old one aside.
    pub(crate) fn replace_by(
        &self,
        fresh: Box<dyn Store>,
        place: &Path,
        label: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        fresh.close()?;
        let aside = self.0.keep_aside(place, label)?;
        self.0.switch_to(place)?;
        let settled = self.0.settle_asides(place).and_then(|()| self.0.remove_strays(place));
        if let Err(error) = settled {
            tracing::error!(%error, "old data is put aside when the store is opened again");
        }
        Ok(aside)
    }
}

impl Directory {
    /// Keeps the current data for a switch to another place; it stays where it is, too. Returns where it is
    /// after the switch and [`settle_asides`](Self::settle_asides); none: there is none.
    pub(super) fn keep_aside(
        &self,
        next: &Path,
        label: &str,
    ) -> Result<Option<PathBuf>, StoreError> {
        let io_error =
            |e: io::Error| StoreError::from_io(self.path(), "keep the old data aside", &e);
        let current = self.current()?;
        self.settle_asides(&current)?;
        let files = if current == self.path() {
            self.data_files()?
        } else {
            let entries = fs::read_dir(&current).map_err(io_error)?;
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().map_err(io_error)?
        };
        if files.is_empty() {
            return Ok(None);
        }
        let kept = (1..)
            .map(|number: u32| self.path().join(format!("{label}-{number}")))
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.path().join(label));
        let mut aside = kept.clone().into_os_string();
        aside.push(FOR);
        aside.push(next.file_name().unwrap_or_default());
        let aside = PathBuf::from(aside);
        fs::create_dir(&aside).map_err(io_error)?;
        for file in files {
            link(&file, &aside).map_err(io_error)?;
        }
        let values = self.path().join(large::DIRECTORY);
        if values.exists() {
            link(&values, &aside).map_err(io_error)?;
        }
        sync_directories(&aside).map_err(io_error)?;
        self.sync()?;
        Ok(Some(kept))
    }

    /// Gives data that was kept for the switch to the current place its lasting name, and removes what was
    /// kept for a switch that has not come about.
    pub(super) fn settle_asides(&self, current: &Path) -> Result<(), StoreError> {
        let settle = || {
            let mut has_named = false;
            for entry in fs::read_dir(self.path())? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                match name.split_once(FOR) {
                    Some((kept, place)) if number(place).is_some() => {
                        if self.path().join(place) == current {
                            fs::rename(entry.path(), self.path().join(kept))?;
                            has_named = true;
                        } else {
                            remove_all(&entry.path())?;
                        }
                    }
                    Some(_) | None => {}
                }
            }
            Ok(has_named)
        };
        let settled = settle();
        match settled.map_err(|e| StoreError::from_io(self.path(), "put old data aside", &e))? {
            true => sync_file(self.path(), self.path(), "sync the directory"),
            false => Ok(()),
        }
    }
}

/// Gives a file, or all in a directory, a second name in another directory; a copy where a file can have
/// but one name.
fn link(from: &Path, into: &Path) -> io::Result<()> {
    let to = into.join(from.file_name().unwrap_or_default());
    if from.is_dir() {
        fs::create_dir(&to)?;
        return fs::read_dir(from)?.try_for_each(|entry| link(&entry?.path(), &to));
    }
    fs::hard_link(from, &to).or_else(|_| fs::copy(from, &to).and_then(|_| sync_path(&to)))
}

fn sync_directories(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_directories(&path)?;
        }
    }
    sync_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [&str; 4] = ["db", "journal-0", "blobs/one", "snap.1"];

    /// Files of an engine, and a large value.
    fn fill(place: &Path) {
        fs::create_dir_all(place.join("blobs")).unwrap();
        OLD.iter().for_each(|name| fs::write(place.join(name), name).unwrap());
    }

    fn holds(place: &Path, values: &Path) -> bool {
        OLD.iter()
            .all(|name| fs::read(place.join(name)).is_ok_and(|found| found == name.as_bytes()))
            && fs::read(values.join("values/large")).is_ok_and(|found| found == b"large")
    }

    /// What is there after a restore that a crash has ended after so many of its steps.
    fn after_crash(old: &str, steps: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::lock(folder.path(), false).unwrap();
        fs::create_dir(folder.path().join("values")).unwrap();
        fs::write(folder.path().join("values/large"), "large").unwrap();
        let old = folder.path().join(old);
        fill(&old);
        if old.ends_with("data-1") {
            directory.switch_to(&old).unwrap();
        }
        let next = directory.new_place().unwrap();
        fs::write(next.join("db"), "restored").unwrap();
        let kept = folder.path().join("damaged-1");
        let aside = PathBuf::from(format!("{}.for-{}", kept.display(), name(&next)));
        let mut all: [&mut dyn FnMut(); 6] = [
            // In the middle of what is kept.
            &mut || {
                fs::create_dir(&aside).unwrap();
                fs::hard_link(old.join("db"), aside.join("db")).unwrap();
            },
            &mut || {
                // The process that goes on is another one.
                directory.settle_asides(&directory.current().unwrap()).unwrap();
                assert_eq!(directory.keep_aside(&next, "damaged").unwrap(), Some(kept.clone()));
            },
            &mut || directory.switch_to(&next).unwrap(),
            &mut || directory.settle_asides(&next).unwrap(),
            // In the middle of the removal.
            &mut || fs::remove_file(old.join("db")).unwrap(),
            &mut || directory.remove_strays(&next).unwrap(),
        ];
        all[..steps].iter_mut().for_each(|step| step());
        folder
    }

    fn name(path: &Path) -> String {
        path.file_name().unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_data_in_its_place_or_aside() {
        for old in ["", "data-1"] {
            for steps in 0..=6 {
                let folder = after_crash(old, steps);
                let directory = Directory::lock(folder.path(), true).unwrap();
                let (current, old) = (directory.place().unwrap(), folder.path().join(old));
                let aside = folder.path().join("damaged-1");
                let is_switched = steps > 2;
                let place = if is_switched { &aside } else { &old };
                let values = if is_switched { &aside } else { folder.path() };
                assert!(holds(place, values), "{old:?}, {steps} steps");
                assert_eq!(current != old, is_switched, "{old:?}, {steps} steps");
                assert_eq!(aside.exists(), is_switched, "{old:?}, {steps} steps");
                if is_switched {
                    assert_eq!(fs::read(current.join("db")).unwrap(), b"restored");
                    assert!(!old.join("db").exists() && !old.join("snap.1").exists());
                }
                let names = fs::read_dir(folder.path()).unwrap().map(|e| name(&e.unwrap().path()));
                assert_eq!(names.filter(|name| name.contains(FOR)).count(), 0, "{steps} steps");
            }
        }
    }
}
