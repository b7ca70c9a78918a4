//! Rows that change together, one behind the other in one piece of memory.
//!
//! A batch is made by one thread and written by another; rows with allocations of their own would cost
//! both of them more than what is in them. The journal writes the piece as it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::ValueId;

/// Lengths of a key and of a value in front of each row.
const LENGTHS_BYTES: usize = 8;

/// Rows that change together: all of them after a crash, or none.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    rows: Vec<u8>,
    /// Large values that rows refer to from now on, and those that none refers to any more.
    large: BTreeMap<ValueId, Option<Bytes>>,
    size_bytes: usize,
}

impl WriteBatch {
    /// Sets a row.
    ///
    /// # Panics
    /// The key or the value has 4 GiB or more.
    pub fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.push(key.as_ref(), Some(value.as_ref()));
    }

    /// Removes a row.
    ///
    /// # Panics
    /// The key has 4 GiB or more.
    pub fn delete(&mut self, key: impl AsRef<[u8]>) {
        self.push(key.as_ref(), None);
    }

    /// Sets a row to what `write` appends.
    pub(crate) fn put_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.rows.len();
        self.push(key, Some(&[]));
        let value_from = self.rows.len();
        write(&mut self.rows);
        let value_len = length(&self.rows[value_from..]);
        self.rows[from + 4..from + LENGTHS_BYTES].copy_from_slice(&(value_len + 1).to_le_bytes());
        self.size_bytes += value_len as usize;
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.size_bytes += key.len() + value.map_or(0, <[u8]>::len);
        push_row(&mut self.rows, key, value);
    }

    /// Adds a large value that rows of this batch refer to.
    pub fn put_large(&mut self, id: ValueId, value: Bytes) {
        self.size_bytes += value.len();
        self.large.insert(id, Some(value));
    }

    /// Says that no row refers to a large value after this batch.
    pub fn remove_large(&mut self, id: ValueId) {
        self.large.insert(id, None);
    }

    /// Returns the large values to be stored before the rows, and those to be removed after them.
    pub fn large(&self) -> &BTreeMap<ValueId, Option<Bytes>> {
        &self.large
    }

    /// Appends the changes of a later batch.
    pub fn append(&mut self, mut later: Self) {
        self.size_bytes += later.size_bytes;
        if self.rows.is_empty() {
            self.rows = later.rows;
        } else {
            self.rows.extend_from_slice(&later.rows);
        }
        self.large.append(&mut later.large);
    }

    /// Returns the changes in order; of two changes of one row the later one counts.
    pub fn rows(&self) -> Rows<'_> {
        Rows(&self.rows)
    }

    /// Returns the changes as they are in memory, for [`Rows`].
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.rows
    }

    /// Returns whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.large.is_empty()
    }

    /// Returns the bytes of all keys and values.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// Appends a change of a row as [`Rows`] reads it.
pub(super) fn push_row(rows: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let bytes = value.unwrap_or_default();
    // Zero is no value.
    let value_len = value.map_or(0, |value| length(value) + 1);
    rows.reserve(LENGTHS_BYTES + key.len() + bytes.len());
    rows.extend_from_slice(&length(key).to_le_bytes());
    rows.extend_from_slice(&value_len.to_le_bytes());
    rows.extend_from_slice(key);
    rows.extend_from_slice(bytes);
}

/// Visits changes of rows: the key, and the value, or none where the row is removed.
#[derive(Clone, Debug)]
pub struct Rows<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key_len, rest) = self.0.split_first_chunk::<4>()?;
        let (value_len, rest) = rest.split_first_chunk::<4>()?;
        let value_len = u32::from_le_bytes(*value_len) as usize;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key_len) as usize)?;
        let (value, rest) = rest.split_at_checked(value_len.saturating_sub(1))?;
        self.0 = rest;
        Some((key, (value_len > 0).then_some(value)))
    }
}

/// One less than can be said, so that there is room for "no value".
fn length(bytes: &[u8]) -> u32 {
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length < u32::MAX);
    length.expect("a row has less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_in_order_with_empty_keys_and_values() {
        let mut batch = WriteBatch::default();
        assert!(batch.is_empty());
        batch.put("a", "1");
        batch.put("", "");
        let mut later = WriteBatch::default();
        later.delete("a");
        later.put_with(b"b", |row| row.extend_from_slice(b"23"));
        later.put_with(b"c", |_| {});
        batch.append(later);
        let rows: Vec<_> = batch.rows().collect();
        let expected: [(&[u8], Option<&[u8]>); 5] = [
            (b"a", Some(b"1")),
            (b"", Some(b"")),
            (b"a", None),
            (b"b", Some(b"23")),
            (b"c", Some(b"")),
        ];
        assert_eq!(rows, expected);
        assert_eq!(batch.size_bytes(), 7);
    }
}
