//! Keeps batches until the engine behind it has stored them: two files, written in turn.
//!
//! A commit waits for one write and one fdatasync here instead of for the engine, which stores many
//! groups at once and takes its time. Two rules make that safe. A batch reaches the engine only when
//! it is durable here (write-ahead logging), so after a power cut the engine is never ahead. A file
//! is written anew only when the engine has durably stored all of it and knows so: it keeps the number
//! of the last batch that it has. What follows that number without a gap is done again at the next
//! open; the first batch that is torn or absent ends it, as nothing behind it was acknowledged.
//!
//! That the end is torn, and not damaged, is no guess. Each batch says up to which number all were
//! durable when it was written, and behind each sync an empty batch is written to say so of the last
//! ones; it reaches the disk with the next sync, or when the kernel finds the time. A batch that any other
//! one calls durable, and that is not found, was lost by the disk: the store is corrupt. Numbers are never
//! used twice, so it does not matter where in the files a batch is found. That it may be found anywhere is why
//! checksums begin with a salt, which each store draws for itself: no value that somebody has written can
//! pass for a batch.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{StoreError, WriteBatch};

/// The two files of a place.
pub(super) const FILES: [&str; 2] = ["journal-0", "journal-1"];
/// Of each batch in a file, all little-endian: length and checksum of the body, the number of the batch,
/// the number up to which all are durable, and a checksum of the salt and these.
const HEADER_BYTES: usize = 28;
/// The part of the header that its checksum is about.
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// Batches that are not in the engine yet.
#[derive(Debug)]
pub(super) struct Journal {
    files: [Arc<File>; 2],
    /// Which file is written to.
    active: usize,
    /// What is in the active file.
    content: Content,
    salt: u64,
    /// Number of the next batch.
    next: u64,
    /// Number of the last batch that is durable, with all before it.
    durable: u64,
}

/// The batches of a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Those that are not empty, with their headers. Each has memory of its own: one piece of many MiB
    /// would be moved as it grows, and a commit would wait for that.
    frames: Vec<Vec<u8>>,
    /// Where the next one begins.
    end: u64,
    rows_bytes: usize,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that the engine does not have, in order, as [`super::Rows`] reads them.
    pub(super) rows: Vec<u8>,
    /// The number that the engine has to know before the journal is used.
    pub(super) number: u64,
}

/// A file that is full for now, with what is in it.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) file: Arc<File>,
    pub(super) content: Content,
    /// Number of its last batch.
    pub(super) number: u64,
}

impl Journal {
    /// Opens the files in a place, and makes them unless they must be there. `stored` is the number
    /// of the last batch that the engine has.
    ///
    /// # Errors
    /// They cannot be read or made, are gone, or have lost what was durable.
    pub(super) fn open(
        store: &Path,
        place: &Path,
        salt: u64,
        stored: u64,
        must_exist: bool,
    ) -> Result<(Self, Found), StoreError> {
        let (mut files, mut frames, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for name in FILES {
            let path = place.join(name);
            if must_exist && !path.exists() {
                return Err(StoreError::corrupt(store, format!("its file `{name}` is gone")));
            }
            let mut opened = || {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(false);
                let file = file.open(&path)?;
                bytes.clear();
                (&file).read_to_end(&mut bytes)?;
                // A killed process may have left what the kernel alone has.
                file.sync_data()?;
                io::Result::Ok(file)
            };
            let file =
                opened().map_err(|error| StoreError::from_io(store, "open the journal", &error))?;
            files.push(Arc::new(file));
            frames.extend(Frame::newer(&bytes, salt, stored));
        }
        drop(bytes);
        let found = follow(frames, stored).map_err(|what| StoreError::corrupt(store, what))?;
        let files = files.try_into().expect("there are two names");
        let (next, durable) = (found.number + 1, found.number);
        let journal = Self { files, active: 0, content: Content::default(), salt, next, durable };
        Ok((journal, found))
    }

    /// Writes a batch and returns the file that has to be synced. After an error part of it may be
    /// there, which the next open takes for nothing.
    pub(super) fn append(&mut self, batch: &WriteBatch) -> io::Result<&Arc<File>> {
        self.write(batch.as_bytes())
    }

    /// Says that all batches so far are durable, also to whoever reads the files later: until then
    /// the last of them could not be told from one that was torn.
    pub(super) fn synced(&mut self) -> io::Result<()> {
        self.durable = self.next - 1;
        self.write(&[]).map(drop)
    }

    fn write(&mut self, body: &[u8]) -> io::Result<&Arc<File>> {
        let (file, content) = (&self.files[self.active], &mut self.content);
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend_from_slice(&header(self.salt, self.next, self.durable, body));
        frame.extend_from_slice(body);
        file.write_all_at(&frame, content.end)?;
        content.end += frame.len() as u64;
        if !body.is_empty() {
            content.frames.push(frame);
            content.rows_bytes += body.len();
        }
        self.next += 1;
        Ok(file)
    }

    /// Returns the bytes of rows that wait for the engine in the active file.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.content.rows_bytes
    }

    /// Returns the number of the last batch.
    pub(super) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Empties both files. The engine must have stored everything: then nothing in them is missed, whatever of
    /// this a crash leaves.
    pub(super) fn empty(&mut self) -> io::Result<()> {
        self.content = Content::default();
        self.files.iter().try_for_each(|file| {
            file.set_len(0)?;
            // What is written next must not come before what was here.
            file.sync_all()
        })
    }

    /// Goes on at the start of the other file, of which the engine must have stored everything.
    pub(super) fn turn(&mut self) -> Full {
        let file = Arc::clone(&self.files[self.active]);
        self.active = 1 - self.active;
        Full { file, content: std::mem::take(&mut self.content), number: self.last() }
    }
}

impl Content {
    /// Returns the rows of each batch, in order, as [`super::Rows`] reads them.
    pub(super) fn bodies(&self) -> Vec<&[u8]> {
        self.frames.iter().map(|frame| &frame[HEADER_BYTES..]).collect()
    }
}

/// A batch in a file.
struct Frame<Body> {
    number: u64,
    /// All up to this number were durable when it was written.
    durable: u64,
    body: Body,
}

impl<'a> Frame<&'a [u8]> {
    /// Returns the batch that begins here, if it is sound.
    fn read(bytes: &'a [u8], salt: u64) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let (number, durable) = (wide_at(header, 8), wide_at(header, 16));
        // Most places that are looked at are in the middle of something.
        let is_likely = durable < number;
        if !is_likely || narrow_at(header, 24) != checksum(salt, header) {
            return None;
        }
        let (body, _) = rest.split_at_checked(narrow_at(header, 0) as usize)?;
        (narrow_at(header, 4) == crc32fast::hash(body)).then_some(Self { number, durable, body })
    }

    /// Returns all sound batches of a file, what was behind unsound ones and what earlier turns have
    /// left included.
    fn all(bytes: &'a [u8], salt: u64) -> impl Iterator<Item = Self> {
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < bytes.len() {
                if let Some(frame) = Self::read(&bytes[at..], salt) {
                    at += HEADER_BYTES + frame.body.len();
                    return Some(frame);
                }
                at += 1;
            }
            None
        })
    }

    /// Returns the batches of a file that the engine does not have.
    fn newer(bytes: &'a [u8], salt: u64, stored: u64) -> impl Iterator<Item = Frame<Vec<u8>>> {
        let newer = Self::all(bytes, salt).filter(move |frame| frame.number > stored);
        newer.map(|Self { number, durable, body }| Frame { number, durable, body: body.to_vec() })
    }
}

/// Puts together what follows a number without a gap. The number from which to go on is greater than
/// all that are in the files, so that nothing in them can be taken for what comes.
fn follow(mut frames: Vec<Frame<Vec<u8>>>, stored: u64) -> Result<Found, String> {
    frames.sort_by_key(|frame| frame.number);
    let durable = frames.iter().map(|frame| frame.durable).max().unwrap_or_default();
    let newest = frames.last().map_or(stored, |frame| frame.number);
    let (mut rows, mut last) = (Vec::new(), stored);
    for frame in frames {
        if frame.number != last + 1 {
            break;
        }
        rows.extend_from_slice(&frame.body);
        last = frame.number;
    }
    if durable > last {
        let first = last + 1;
        return Err(format!(
            "its journal has lost batch {first}: all up to {durable} were on the disk"
        ));
    }
    Ok(Found { rows, number: newest })
}

fn header(salt: u64, number: u64, durable: u64, body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length(body).to_le_bytes());
    header[4..8].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..CHECKED_BYTES].copy_from_slice(&durable.to_le_bytes());
    let checksum = checksum(salt, &header);
    header[CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn checksum(salt: u64, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&header[..CHECKED_BYTES]);
    hasher.finalize()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a group is far below 4 GiB")
}

fn narrow_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("these are 4 bytes"))
}

fn wide_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("these are 8 bytes"))
}

#[cfg(test)]
mod tests;
