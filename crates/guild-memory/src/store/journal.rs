//! Keeps batches until the engine behind it has stored them: two files, written in turn.
//!
//! A commit waits for one write and one fdatasync here instead of for the engine, which stores many
//! groups at once and takes its time. Two rules make that safe. A batch reaches the engine only when
//! it is durable here (write-ahead logging), so after a power cut the engine is never ahead. A file
//! is written anew only when the engine has durably stored all of it and knows so: it keeps the number
//! of the last batch that it has. What follows that number without a gap is done again at the next
//! open; the first batch that is torn or absent ends it, as nothing behind it was acknowledged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{StoreError, WriteBatch};

/// The two files of a place.
pub(super) const FILES: [&str; 2] = ["journal-0", "journal-1"];
/// Length of the body, checksum, number.
const HEADER_BYTES: usize = 16;

/// Batches that are not in the engine yet.
#[derive(Debug)]
pub(super) struct Journal {
    files: [Arc<File>; 2],
    /// Which file is written to, and where it ends.
    active: usize,
    end: u64,
    /// Number of the next batch.
    next: u64,
    /// The rows of the active file.
    rows: Vec<u8>,
    frame: Vec<u8>,
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows that the engine does not have, in order, as [`super::Rows`] reads them.
    pub(super) rows: Vec<u8>,
    /// The number that the engine has to know before the journal is used.
    pub(super) number: u64,
}

/// A file that is full for now, with the rows in it.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) file: Arc<File>,
    pub(super) rows: Vec<u8>,
    /// Number of its last batch.
    pub(super) number: u64,
}

impl Journal {
    /// Opens the files in a place, and makes them unless they must be there. `stored` is the number
    /// of the last batch that the engine has.
    ///
    /// # Errors
    /// They cannot be read or made, or are gone.
    pub(super) fn open(
        store: &Path,
        place: &Path,
        stored: u64,
        must_exist: bool,
    ) -> Result<(Self, Found), StoreError> {
        let (mut files, mut runs) = (Vec::new(), Vec::new());
        for name in FILES {
            let path = place.join(name);
            if must_exist && !path.exists() {
                return Err(StoreError::corrupt(store, format!("its file `{name}` is gone")));
            }
            let opened = (|| {
                let mut options = OpenOptions::new();
                let file = options.read(true).write(true).create(true).truncate(false);
                let file = file.open(&path)?;
                let bytes = read_all(&file)?;
                // A killed process may have left what the kernel alone has.
                file.sync_data()?;
                io::Result::Ok((file, bytes))
            })();
            let (file, bytes) =
                opened.map_err(|error| StoreError::from_io(store, "open the journal", &error))?;
            files.push(Arc::new(file));
            runs.push(Run::read(bytes));
        }
        let found = follow(runs, stored);
        let files = files.try_into().expect("there are two names");
        let (rows, frame) = (Vec::new(), Vec::new());
        let journal = Self { files, active: 0, end: 0, next: found.number + 1, rows, frame };
        Ok((journal, found))
    }

    /// Writes a batch and returns the file that has to be synced. After an error part of it may be
    /// there, which the next open takes for nothing.
    pub(super) fn append(&mut self, batch: &WriteBatch) -> io::Result<&Arc<File>> {
        let file = &self.files[self.active];
        let body = batch.as_bytes();
        self.frame.clear();
        self.frame.extend_from_slice(&header(self.next, body));
        self.frame.extend_from_slice(body);
        file.write_all_at(&self.frame, self.end)?;
        self.rows.extend_from_slice(body);
        self.end += self.frame.len() as u64;
        self.next += 1;
        Ok(file)
    }

    /// Returns the bytes of rows that wait for the engine in the active file.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.rows.len()
    }

    /// Goes on at the start of the other file, of which the engine must have stored everything.
    pub(super) fn turn(&mut self) -> Full {
        let file = Arc::clone(&self.files[self.active]);
        self.active = 1 - self.active;
        self.end = 0;
        Full { file, rows: std::mem::take(&mut self.rows), number: self.next - 1 }
    }
}

/// The sound batches at the start of a file.
#[derive(Debug)]
struct Run {
    bytes: Vec<u8>,
    first: u64,
    /// Where the body of each batch is.
    bodies: Vec<std::ops::Range<usize>>,
}

impl Run {
    fn read(bytes: Vec<u8>) -> Self {
        let (mut first, mut bodies, mut at) = (0, Vec::new(), 0);
        while let Some(frame) = bytes[at..].split_at_checked(HEADER_BYTES)
            && let Some((body, _)) = frame.1.split_at_checked(number_at(frame.0, 0) as usize)
        {
            let number = u64::from_le_bytes(frame.0[8..].try_into().expect("these are 8 bytes"));
            if bodies.is_empty() {
                first = number;
            }
            // What an earlier turn has left behind has an earlier number.
            let is_next = number > 0 && number == first + bodies.len() as u64;
            if !is_next || frame.0 != header(number, body) {
                break;
            }
            let from = at + HEADER_BYTES;
            at = from + body.len();
            bodies.push(from..at);
        }
        Self { bytes, first, bodies }
    }

    /// Number after the last batch.
    fn next(&self) -> u64 {
        self.first + self.bodies.len() as u64
    }
}

/// Puts together what follows a number without a gap. The number from which to go on is greater than
/// all that are in the files, so that nothing in them can be taken for what comes.
fn follow(mut runs: Vec<Run>, stored: u64) -> Found {
    runs.retain(|run| !run.bodies.is_empty());
    runs.sort_by_key(|run| run.first);
    let mut rows = Vec::new();
    let mut next = stored + 1;
    for run in &runs {
        if run.first <= next && next < run.next() {
            let known =
                usize::try_from(next - run.first).expect("it is below the batches of a file");
            for body in &run.bodies[known..] {
                rows.extend_from_slice(&run.bytes[body.clone()]);
            }
            next = run.next();
        }
    }
    let newest = runs.iter().map(Run::next).max().unwrap_or_default();
    Found { rows, number: next.max(newest) - 1 }
}

fn header(number: u64, body: &[u8]) -> [u8; HEADER_BYTES] {
    let number = number.to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number);
    hasher.update(body);
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length(body).to_le_bytes());
    header[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    header[8..].copy_from_slice(&number);
    header
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a group is far below 4 GiB")
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("these are 4 bytes"))
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Rows;

    fn batch(rows: &[(&str, Option<&str>)]) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }

    fn open(place: &Path, stored: u64) -> (Journal, Vec<String>, u64) {
        let (journal, found) = Journal::open(place, place, stored, false).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let shown = Rows(&found.rows)
            .map(|(key, value)| format!("{}={}", text(key), value.map_or("-".into(), text)));
        (journal, shown.collect(), found.number)
    }

    /// Writes batches `from..to`, each with one row that says which it is.
    fn write(journal: &mut Journal, numbers: std::ops::Range<u32>) {
        for number in numbers {
            journal.append(&batch(&[("k", Some(&number.to_string()))])).unwrap();
        }
    }

    #[test]
    fn what_the_engine_does_not_have_is_found_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, found, number) = open(folder.path(), 0);
        assert_eq!((found.len(), number), (0, 0));
        journal.append(&batch(&[("a", Some("1")), ("b", None), ("", Some(""))])).unwrap();
        write(&mut journal, 2..4);
        assert_eq!(journal.turn().number, 3);
        write(&mut journal, 4..6);
        assert_eq!(open(folder.path(), 0).1, ["a=1", "b=-", "=", "k=2", "k=3", "k=4", "k=5"]);
        assert_eq!(open(folder.path(), 2).1, ["k=3", "k=4", "k=5"]);
        let (_, found, number) = open(folder.path(), 5);
        assert_eq!((found.len(), number), (0, 5));
    }

    #[test]
    fn a_file_that_is_written_anew_hides_what_it_held() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(folder.path(), 0);
        write(&mut journal, 1..5);
        journal.turn();
        write(&mut journal, 5..7);
        journal.turn();
        write(&mut journal, 7..8);
        assert_eq!(open(folder.path(), 4).1, ["k=5", "k=6", "k=7"]);
    }

    #[test]
    fn a_torn_batch_ends_what_is_found_and_its_number_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, ..) = open(folder.path(), 0);
        write(&mut journal, 1..4);
        journal.turn();
        write(&mut journal, 4..6);
        let path = folder.path().join(FILES[0]);
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (_, found, number) = open(folder.path(), 0);
        assert_eq!(found, ["k=1", "k=2"]);
        assert_eq!(number, 5, "batch 3 is torn, and batches 4 and 5 must never follow another one");
    }

    #[test]
    fn files_that_must_be_there_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        let error = Journal::open(folder.path(), folder.path(), 0, true).unwrap_err();
        assert!(error.to_string().contains("journal-0"), "{error}");
    }
}
