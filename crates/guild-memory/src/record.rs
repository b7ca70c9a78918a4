//! Turns what the memory knows into rows and back: postcard, chunks, checksums.
//!
//! Every row carries a CRC-32 over its key and content, so a flipped bit is found, and so is a row
//! that turns up under another key. Large records are cut into chunks of 32 KiB because sled keeps
//! larger pages in files of their own that it never syncs. Rows that go missing or come back from
//! the past are found by the [`Ledger`].

use guild_core::event::EventRecord;
use guild_core::graph::{Bindings, Expr, Graph, TaskName, TaskOptions, TaskSpec};
use guild_core::id::{BootEpoch, CommitVersion, TaskIndex};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::Writer;
use crate::snapshot::Entry;
use crate::store::{ValueId, WriteBatch};

/// Bytes of a record in one row; longer records are cut.
const CHUNK_BYTES: usize = 32 << 10;
const CHECKSUM_BYTES: usize = 4;

/// Sums up which rows exist, in any order: the exclusive or of a mix of their checksums.
///
/// Each group of events stores the ledger of the rows as they are after it. Recovery adds up what
/// it finds; a missing, extra or outdated row makes the sums differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    rows: u64,
    digest: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, checksum: u32) {
        self.rows += 1;
        self.digest ^= mix(checksum);
    }

    pub(crate) fn remove(&mut self, checksum: u32) {
        self.rows -= 1;
        self.digest ^= mix(checksum);
    }
}

fn mix(checksum: u32) -> u64 {
    let z = u64::from(checksum).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A value of the shared memory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DataRow<'a> {
    pub(crate) version: CommitVersion,
    pub(crate) writer: Option<Writer>,
    #[serde(borrow)]
    pub(crate) value: ValueRow<'a>,
}

/// Where a value is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ValueRow<'a> {
    /// In the row.
    Inline(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
    /// In a file of its own.
    Large(ValueId),
}

/// Serialises bytes as a whole; as a list of numbers, which has the same form, they would be written one
/// by one.
pub(crate) fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl<'a> From<&'a Entry> for DataRow<'a> {
    fn from(entry: &'a Entry) -> Self {
        let value = match &entry.large {
            Some(id) => ValueRow::Large(**id),
            None => ValueRow::Inline(&entry.value),
        };
        Self { version: entry.version, writer: entry.writer, value }
    }
}

/// What the process knows about itself when it starts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BootRow {
    pub(crate) epoch: BootEpoch,
}

/// Names by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CatalogRow {
    pub(crate) roles: Vec<String>,
    pub(crate) quotas: Vec<String>,
}

/// Leads the events of one group.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GroupHeader {
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) epoch: BootEpoch,
    /// The newest commit after the group.
    pub(crate) version: CommitVersion,
    /// The newest commit that has changed data.
    pub(crate) logged: CommitVersion,
    /// The rows after the group.
    pub(crate) ledger: Ledger,
}

/// A graph with its task options stored once each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GraphRow {
    name: String,
    roles: Vec<Arc<str>>,
    quotas: Vec<Arc<str>>,
    options: Vec<Arc<TaskOptions>>,
    tasks: Vec<TaskRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TaskRow {
    name: TaskName,
    options: u32,
    after: Box<[TaskIndex]>,
    input: Expr<TaskIndex>,
    expected: Duration,
}

/// A submitted run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunRow {
    pub(crate) name: String,
    pub(crate) bindings: Bindings,
    pub(crate) graph: GraphRow,
}

/// Tasks spawned by one commit.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SpawnedRow {
    pub(crate) parent: TaskIndex,
    pub(crate) bindings: Bindings,
    pub(crate) graph: GraphRow,
}

impl GraphRow {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut options: Vec<Arc<TaskOptions>> = Vec::new();
        let tasks = graph.tasks.iter().map(|task| TaskRow {
            name: task.name.clone(),
            options: place_of(&mut options, &task.options),
            after: task.after.clone(),
            input: task.input.clone(),
            expected: task.expected,
        });
        let tasks = tasks.collect();
        Self {
            name: graph.name.clone(),
            roles: graph.roles.clone(),
            quotas: graph.quotas.clone(),
            options,
            tasks,
        }
    }

    pub(crate) fn into_graph(self) -> Result<Graph, String> {
        let options = self.options;
        let tasks = self.tasks.into_iter().map(|task| {
            let shared = options.get(task.options as usize).ok_or("a task without options")?;
            Ok(TaskSpec {
                name: task.name,
                options: shared.clone(),
                after: task.after,
                input: task.input,
                expected: task.expected,
            })
        });
        let tasks = tasks.collect::<Result<_, &str>>()?;
        Ok(Graph { name: self.name, roles: self.roles, quotas: self.quotas, tasks })
    }
}

/// Finds options among the newest few: tasks of one kind are added in a row.
fn place_of(known: &mut Vec<Arc<TaskOptions>>, options: &Arc<TaskOptions>) -> u32 {
    const LOOK_BACK: usize = 64;
    let oldest = known.len().saturating_sub(LOOK_BACK);
    let place = known[oldest..]
        .iter()
        .rposition(|other| Arc::ptr_eq(other, options) || other == options)
        .map_or(known.len(), |place| oldest + place);
    if place == known.len() {
        known.push(options.clone());
    }
    u32::try_from(place).expect("no more options than tasks, which are counted by u32")
}

pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    postcard::to_stdvec(record).expect("rows hold nothing that postcard cannot encode")
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<T, String> {
    postcard::from_bytes(content).map_err(|error| error.to_string())
}

pub(crate) fn decode_owned<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    decode(content)
}

/// Appends a record to what is there.
pub(crate) fn encode_onto<T: Serialize>(content: &mut Vec<u8>, record: &T) {
    *content = postcard::to_extend(record, std::mem::take(content))
        .expect("rows hold nothing that postcard cannot encode");
}

/// Appends an event to the body of a group.
pub(crate) fn encode_event(body: &mut Vec<u8>, record: &EventRecord) {
    // The sequence number follows from the place in the group.
    encode_onto(body, &(record.at, &record.event));
}

/// Decodes the events of one group, in order.
pub(crate) fn decode_group(content: &[u8]) -> Result<(GroupHeader, Vec<EventRecord>), String> {
    let (header, mut body): (GroupHeader, _) =
        postcard::take_from_bytes(content).map_err(|error| error.to_string())?;
    let mut records = Vec::with_capacity((header.count as usize).min(content.len()));
    for place in 0..header.count {
        let ((at, event), rest) =
            postcard::take_from_bytes(body).map_err(|error| error.to_string())?;
        records.push(EventRecord { seq: header.first_seq + u64::from(place), at, event });
        body = rest;
    }
    if body.is_empty() { Ok((header, records)) } else { Err("events left over".into()) }
}

/// Puts a row under a key: a checksum and the content that `write` appends. Returns the checksum.
pub(crate) fn put_sealed(
    batch: &mut WriteBatch,
    key: &[u8],
    write: impl FnOnce(&mut Vec<u8>),
) -> u32 {
    let mut sealed = 0;
    batch.put_with(key, |rows| {
        let from = rows.len();
        rows.extend_from_slice(&[0; CHECKSUM_BYTES]);
        write(rows);
        let (stored, content) = rows[from..].split_at_mut(CHECKSUM_BYTES);
        sealed = checksum(key, content);
        stored.copy_from_slice(&sealed.to_le_bytes());
    });
    sealed
}

/// Returns the content of a row and its checksum, if they agree.
pub(crate) fn unseal<'a>(key: &[u8], row: &'a [u8]) -> Result<(&'a [u8], u32), String> {
    let (stored, content) =
        row.split_first_chunk::<CHECKSUM_BYTES>().ok_or("a row is shorter than its checksum")?;
    let stored = u32::from_le_bytes(*stored);
    if stored == checksum(key, content) {
        Ok((content, stored))
    } else {
        Err("a checksum does not match".into())
    }
}

fn checksum(key: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(content);
    hasher.finalize()
}

/// Returns the number of rows that a record of this content takes.
pub(crate) fn chunks_of(content: &[u8]) -> u32 {
    let chunks = content.len().div_ceil(CHUNK_BYTES).max(1);
    u32::try_from(chunks).expect("a record is far below 2^32 chunks")
}

/// Returns the key of one of the rows of a record.
pub(crate) fn chunk_key(key: &[u8], number: u32) -> Vec<u8> {
    let mut chunk_key = key.to_vec();
    chunk_key.extend_from_slice(&number.to_be_bytes());
    chunk_key
}

/// Puts a record of any length into rows `key + chunk number`; calls `each` with every checksum.
pub(crate) fn put_chunked(
    batch: &mut WriteBatch,
    key: &[u8],
    content: &[u8],
    mut each: impl FnMut(u32),
) {
    let chunks = chunks_of(content);
    for number in 0..chunks {
        let from = number as usize * CHUNK_BYTES;
        let piece = &content[from..(from + CHUNK_BYTES).min(content.len())];
        each(put_sealed(batch, &chunk_key(key, number), |row| {
            row.push(u8::from(number + 1 == chunks));
            row.extend_from_slice(piece);
        }));
    }
}

/// The key and the content of a record.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// Puts records together again from their chunks, which arrive in order.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    key: Vec<u8>,
    content: Vec<u8>,
    next: u32,
}

impl Assembler {
    /// Takes one row; returns the record that it completes, and the row's checksum.
    pub(crate) fn push(&mut self, key: &[u8], row: &[u8]) -> Result<(Option<Record>, u32), String> {
        let (piece, checksum) = unseal(key, row)?;
        let (record, number) =
            key.split_last_chunk::<4>().ok_or("a row's key has no chunk number")?;
        let number = u32::from_be_bytes(*number);
        if self.next == 0 {
            self.key = record.to_vec();
        }
        if number != self.next || self.key != record {
            return Err("a chunk of a record is missing".into());
        }
        let (&is_last, piece) = piece.split_first().ok_or("a chunk is empty")?;
        self.content.extend_from_slice(piece);
        self.next += 1;
        if is_last == 0 {
            return Ok((None, checksum));
        }
        let done = std::mem::take(self);
        Ok((Some((done.key, done.content)), checksum))
    }

    /// Fails when a record was begun and never completed.
    pub(crate) fn finish(&self) -> Result<(), String> {
        if self.next == 0 { Ok(()) } else { Err("the last record is cut short".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(key: &[u8], content: &[u8]) -> (Vec<u8>, u32) {
        let mut batch = WriteBatch::default();
        let checksum = put_sealed(&mut batch, key, |row| row.extend_from_slice(content));
        (batch.rows().next().unwrap().1.unwrap().to_vec(), checksum)
    }

    fn chunks_of(content: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut batch = WriteBatch::default();
        put_chunked(&mut batch, b"Kx", content, |_| {});
        batch.rows().map(|(key, row)| (key.to_vec(), row.unwrap().to_vec())).collect()
    }

    #[test]
    fn records_of_any_length_survive_the_cut_into_chunks() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES] {
            let content: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut assembler = Assembler::default();
            let mut whole = None;
            for (key, row) in chunks_of(&content) {
                assert!(whole.is_none());
                whole = assembler.push(&key, &row).unwrap().0;
            }
            assert_eq!(whole, Some((b"Kx".to_vec(), content)));
            assembler.finish().unwrap();
        }
    }

    #[test]
    fn a_missing_chunk_is_found() {
        let rows = chunks_of(&vec![7; 3 * CHUNK_BYTES]);
        for missing in 0..rows.len() {
            let mut assembler = Assembler::default();
            let mut result = Ok(());
            for (place, (key, row)) in rows.iter().enumerate() {
                if place != missing {
                    result = result.and(assembler.push(key, row).map(|_| ()));
                }
            }
            assert!(result.and(assembler.finish()).is_err(), "chunk {missing}");
        }
    }

    #[test]
    fn every_flipped_bit_and_a_wrong_key_are_found() {
        let (row, _) = seal(b"key", b"content");
        assert_eq!(unseal(b"key", &row).unwrap().0, b"content");
        assert!(unseal(b"other", &row).is_err());
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_ledger_tells_an_old_row_from_the_new_one() {
        let (old, new) = (seal(b"k", b"1").1, seal(b"k", b"2").1);
        let mut kept = Ledger::default();
        kept.add(old);
        kept.remove(old);
        kept.add(new);
        let mut found = Ledger::default();
        found.add(old);
        assert_ne!(kept, found);
        found.remove(old);
        found.add(new);
        assert_eq!(kept, found);
    }
}
