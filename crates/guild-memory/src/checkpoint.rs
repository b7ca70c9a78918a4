//! Checkpoints: all rows of a store in one file that needs no engine to be read.
//!
//! A checkpoint is backup, migration and the way back from a store that cannot be opened. It is
//! written aside, synced and renamed, so a file of this name is whole; it carries a checksum per
//! block and a footer, so one that is not whole is found. The format is described in
//! `docs/checkpoint.md`. Rows that change while a checkpoint is written follow as changes: whoever
//! replays the blocks in order has the rows as they were at the end.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::key;
use crate::store::{StoreError, ValueId, WriteBatch};

const MAGIC: &[u8; 8] = b"guildckp";
const END_MAGIC: &[u8; 8] = b"guildend";
/// Number of the format of the file; that of the rows is [`key::FORMAT_VERSION`].
const FORMAT_VERSION: u32 = 1;
const SUFFIX: &str = "guild-checkpoint";
/// Where a store keeps its checkpoints.
const FOLDER: &str = "checkpoints";
/// Checkpoints that a store keeps.
const KEPT: usize = 3;
/// A block of this many bytes is written out; rows are not cut.
const BLOCK_BYTES: usize = 1 << 20;
/// No block that Guild writes is longer; a longer one is damage, not a reason to allocate it.
const BLOCK_BYTES_MAX: u32 = 1 << 30;

const ROWS: u8 = 1;
const CHANGES: u8 = 2;
const FOOTER: u8 = 3;
const LARGE: u8 = 4;
const PUT: u8 = 1;
const DELETE: u8 = 0;

/// Why a checkpoint cannot be written or used; nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// There is no such file.
    #[error("no checkpoint at {}; `guild memory stats` lists those of a store", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a guild checkpoint; name a file that `guild memory checkpoint` wrote", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// What was read is not what was written.
    #[error("checkpoint {} is damaged at byte {at}: {what}; use another checkpoint", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It was written by a Guild with another format.
    #[error(
        "checkpoint {} has format version {found}, this program knows {known}; use the program that wrote it",
        .path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that this program reads and writes.
        known: u32,
    },
    /// The file is whole, and its rows are not those of a memory.
    #[error("checkpoint {} holds no whole memory ({what}); use another checkpoint", .path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system refused.
    #[error("could not {doing} checkpoint {}: {message}; check the disk and the path", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        doing: &'static str,
        /// What the operating system said.
        message: String,
    },
    /// The memory is in RAM only, or its store has failed for good.
    #[error("there is no store to write a checkpoint of; start the guild on a directory")]
    NoStore,
    /// The store failed while its rows were read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CheckpointError {
    fn io(path: &Path, doing: &'static str, error: &io::Error) -> Self {
        Self::Io { path: path.to_owned(), doing, message: error.to_string() }
    }

    /// Returns the error of a checkpoint from whose rows no memory can be made.
    pub(crate) fn unsound(path: &Path, error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { what, .. } | StoreError::Foreign { what, .. } => {
                Self::Unsound { path: path.to_owned(), what }
            }
            other => Self::Store(other),
        }
    }
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// The file.
    pub path: PathBuf,
    /// Rows written, and changes of rows while that went on.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Returns the whole checkpoints of the store in a directory, oldest first.
///
/// # Errors
/// The directory cannot be listed.
pub fn list(store: impl AsRef<Path>) -> Result<Vec<PathBuf>, CheckpointError> {
    let folder = store.as_ref().join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(CheckpointError::io(&folder, "list", &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| CheckpointError::io(&folder, "list", &e))?.path();
        if path.extension().is_some_and(|extension| extension == SUFFIX) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Returns the name of the next checkpoint of a store.
///
/// # Errors
/// The directory cannot be listed.
pub(crate) fn next_path(store: &Path) -> Result<PathBuf, CheckpointError> {
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let last = list(store)?.iter().filter_map(number).max().unwrap_or(0);
    Ok(store.join(FOLDER).join(format!("{:08}.{SUFFIX}", last + 1)))
}

/// Removes all but the newest checkpoints of a store.
pub(crate) fn prune(store: &Path) -> Result<(), CheckpointError> {
    let files = list(store)?;
    let excess = files.len().saturating_sub(KEPT);
    for path in &files[..excess] {
        fs::remove_file(path).map_err(|e| CheckpointError::io(path, "remove", &e))?;
    }
    Ok(())
}

/// Writes a checkpoint; a file appears under its name only when it is whole and synced.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    aside: PathBuf,
    file: BufWriter<File>,
    rows: u64,
    bytes: u64,
    block: Vec<u8>,
    kind: u8,
}

impl Writer {
    /// Begins a checkpoint.
    pub(crate) fn begin(path: PathBuf) -> Result<Self, CheckpointError> {
        let aside = path.with_extension(format!("{SUFFIX}.unfinished"));
        let error = |e: io::Error| CheckpointError::io(&path, "write", &e);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(error)?;
        }
        let file = BufWriter::new(File::create(&aside).map_err(error)?);
        let mut writer =
            Self { path, aside, file, rows: 0, bytes: 0, block: Vec::new(), kind: ROWS };
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        head.extend_from_slice(&key::FORMAT_VERSION.to_le_bytes());
        writer.write(&head)?;
        Ok(writer)
    }

    /// Adds a row; rows come in ascending order.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), CheckpointError> {
        self.add(ROWS, key, Some(value))
    }

    /// Adds what changed among the rows that were added already.
    pub(crate) fn changes(&mut self, batch: &WriteBatch) -> Result<(), CheckpointError> {
        batch.rows().try_for_each(|(key, value)| self.add(CHANGES, key, value))
    }

    /// Adds a large value that rows refer to.
    pub(crate) fn large(&mut self, value: &[u8]) -> Result<(), CheckpointError> {
        self.flush()?;
        self.kind = LARGE;
        self.block.extend_from_slice(value);
        self.flush()
    }

    /// Ends the file, syncs it and gives it its name.
    pub(crate) fn finish(mut self) -> Result<CheckpointInfo, CheckpointError> {
        self.flush()?;
        self.kind = FOOTER;
        self.block.extend_from_slice(&self.rows.to_le_bytes());
        self.block.extend_from_slice(END_MAGIC);
        self.flush()?;
        let error = |e: io::Error| CheckpointError::io(&self.path, "write", &e);
        self.file.flush().map_err(error)?;
        self.file.get_ref().sync_all().map_err(error)?;
        fs::rename(&self.aside, &self.path).map_err(error)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|f| f.sync_all()).map_err(error)?;
        Ok(CheckpointInfo { path: self.path.clone(), rows: self.rows, bytes: self.bytes })
    }

    fn add(&mut self, kind: u8, key: &[u8], value: Option<&[u8]>) -> Result<(), CheckpointError> {
        if self.kind != kind || self.block.len() >= BLOCK_BYTES {
            self.flush()?;
            self.kind = kind;
        }
        self.rows += 1;
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.block.push(if value.is_some() { PUT } else { DELETE });
        self.block.extend_from_slice(&length(key));
        self.block.extend_from_slice(key);
        let value = value.unwrap_or_default();
        self.block.extend_from_slice(&length(value));
        self.block.extend_from_slice(value);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), CheckpointError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
        let mut head = vec![self.kind];
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&checksum(self.kind, &block).to_le_bytes());
        self.write(&head)?;
        self.write(&block)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.bytes += bytes.len() as u64;
        let written = self.file.write_all(bytes);
        written.map_err(|e| CheckpointError::io(&self.path, "write", &e))
    }
}

/// An unfinished checkpoint leaves nothing behind.
impl Drop for Writer {
    fn drop(&mut self) {
        if self.aside.exists()
            && let Err(error) = fs::remove_file(&self.aside)
        {
            tracing::warn!(%error, "an unfinished checkpoint was not removed");
        }
    }
}

fn checksum(kind: u8, block: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(block);
    hasher.finalize()
}

/// Reads a whole checkpoint and calls `each` with the rows of each block, in order; the checksum of
/// a block is checked before.
///
/// # Errors
/// See [`CheckpointError`]; `each` may have been called for good blocks before the damaged one.
pub(crate) fn read(
    path: &Path,
    mut each: impl FnMut(&WriteBatch) -> Result<(), CheckpointError>,
) -> Result<CheckpointInfo, CheckpointError> {
    let mut reader = Reader::open(path)?;
    let mut rows = 0;
    loop {
        let at = reader.at;
        let (kind, block) = reader.block()?;
        let damaged = |what| CheckpointError::Damaged { path: path.to_owned(), at, what };
        match kind {
            ROWS | CHANGES => {
                let batch = decode(&block).ok_or_else(|| damaged("a row is cut short"))?;
                rows += batch.rows().count() as u64;
                each(&batch)?;
            }
            LARGE => {
                let mut batch = WriteBatch::default();
                batch.put_large(ValueId::of(&block), block.into());
                each(&batch)?;
            }
            FOOTER => {
                let counted = block.split_first_chunk::<8>();
                let (counted, end) = counted.ok_or_else(|| damaged("the footer is cut short"))?;
                if end != END_MAGIC || u64::from_le_bytes(*counted) != rows {
                    return Err(damaged("the footer does not fit the rows"));
                }
                return reader.finish(rows);
            }
            _ => return Err(damaged("a block is of no known kind")),
        }
    }
}

/// Checks a checkpoint from its first to its last byte.
///
/// # Errors
/// See [`CheckpointError`].
pub fn verify(path: impl AsRef<Path>) -> Result<CheckpointInfo, CheckpointError> {
    read(path.as_ref(), |_| Ok(()))
}

struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    at: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let file = match File::open(path) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(CheckpointError::Missing { path: path.to_owned() });
            }
            Err(error) => return Err(CheckpointError::io(path, "open", &error)),
        };
        let mut reader = Self { path, file, at: 0 };
        let mut head = [0; 16];
        let known_head = reader.read(&mut head).is_ok() && head.starts_with(MAGIC);
        if !known_head {
            return Err(CheckpointError::Foreign { path: path.to_owned() });
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        for (found, known) in [(number(8), FORMAT_VERSION), (number(12), key::FORMAT_VERSION)] {
            if found != known {
                let path = path.to_owned();
                return Err(CheckpointError::FormatVersion { path, found, known });
            }
        }
        Ok(reader)
    }

    fn block(&mut self) -> Result<(u8, Vec<u8>), CheckpointError> {
        let at = self.at;
        let damaged = |what| CheckpointError::Damaged { path: self.path.to_owned(), at, what };
        let mut head = [0; 9];
        self.read(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
        let stored = u32::from_le_bytes([head[5], head[6], head[7], head[8]]);
        if length > BLOCK_BYTES_MAX {
            return Err(damaged("the length of a block makes no sense"));
        }
        let mut block = vec![0; length as usize];
        self.read(&mut block)?;
        if checksum(head[0], &block) != stored {
            return Err(CheckpointError::Damaged {
                path: self.path.to_owned(),
                at,
                what: "a checksum does not match",
            });
        }
        Ok((head[0], block))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), CheckpointError> {
        self.file.read_exact(into).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => CheckpointError::Damaged {
                path: self.path.to_owned(),
                at: self.at,
                what: "the file ends too early",
            },
            _ => CheckpointError::io(self.path, "read", &error),
        })?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn finish(mut self, rows: u64) -> Result<CheckpointInfo, CheckpointError> {
        let mut more = [0; 1];
        match self.file.read(&mut more) {
            Ok(0) => Ok(CheckpointInfo { path: self.path.to_owned(), rows, bytes: self.at }),
            Ok(_) => Err(CheckpointError::Damaged {
                path: self.path.to_owned(),
                at: self.at,
                what: "something follows the footer",
            }),
            Err(error) => Err(CheckpointError::io(self.path, "read", &error)),
        }
    }
}

fn decode(block: &[u8]) -> Option<WriteBatch> {
    let mut rest = block;
    let mut batch = WriteBatch::default();
    while let Some((&kind, after)) = rest.split_first() {
        let (key, after) = piece(after)?;
        let (value, after) = piece(after)?;
        match kind {
            PUT => batch.put(key, value),
            DELETE => batch.delete(key),
            _ => return None,
        }
        rest = after;
    }
    Some(batch)
}

fn piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests;
