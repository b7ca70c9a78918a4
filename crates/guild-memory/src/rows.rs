//! Walks over the rows of a store and finds those that are not as they were written.

use std::ops::{Bound, ControlFlow};

use serde::de::DeserializeOwned;

use crate::key;
use crate::record::{self, Assembler, Ledger, decode_owned, unseal};
use crate::store::{Store, StoreError, WriteBatch};

/// Called with the key and the content of each row; an error says what is wrong with it.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), String>;

/// Visits the rows of one letter.
pub(crate) fn each_row(
    store: &dyn Store,
    letter: u8,
    what: &str,
    each: Visit<'_>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    let (from, to) = ([letter], [letter + 1]);
    store.scan(Bound::Included(&from), Bound::Excluded(&to), &mut |key, row| {
        result = each(key, row);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result.map_err(|error| StoreError::corrupt(store.path(), format!("{what}: {error}")))
}

/// Visits the records of one letter, put together from their chunks.
pub(crate) fn each_record(
    store: &dyn Store,
    letter: u8,
    what: &str,
    mut ledger: Option<&mut Ledger>,
    each: Visit<'_>,
) -> Result<(), StoreError> {
    let mut assembler = Assembler::default();
    each_row(store, letter, what, &mut |key, row| {
        let (record, checksum) = assembler.push(key, row)?;
        if let Some(ledger) = &mut ledger {
            ledger.add(checksum);
        }
        record.map_or(Ok(()), |(key, content)| each(&key, &content))
    })?;
    assembler
        .finish()
        .map_err(|error| StoreError::corrupt(store.path(), format!("{what}: {error}")))
}

/// Puts the row of a record that is not chunked and not in the ledger.
pub(crate) fn put_meta<T: serde::Serialize>(batch: &mut WriteBatch, key: &[u8], content: &T) {
    record::put_sealed(batch, key, |row| record::encode_onto(row, content));
}

/// Returns whether the store has a format; a fresh one has not.
pub(crate) fn check_format(store: &dyn Store) -> Result<bool, StoreError> {
    let Some(row) = store.get(key::FORMAT)? else {
        let mut stranger = None;
        store.scan(Bound::Unbounded, Bound::Unbounded, &mut |key, _| {
            stranger = Some(String::from_utf8_lossy(key).into_owned());
            ControlFlow::Break(())
        })?;
        return match stranger {
            None => Ok(false),
            Some(key) => Err(StoreError::Foreign {
                path: store.path().to_owned(),
                what: format!("it has a row `{key}` but no format version"),
            }),
        };
    };
    let found = format_of(&row).map_err(|what| StoreError::corrupt(store.path(), what))?;
    if found != key::FORMAT_VERSION {
        let path = store.path().to_owned();
        return Err(StoreError::FormatVersion { path, found, known: key::FORMAT_VERSION });
    }
    Ok(true)
}

/// Returns the format version in its row.
pub(crate) fn format_of(row: &[u8]) -> Result<u32, String> {
    let content = unseal(key::FORMAT, row).and_then(|(content, _)| decode_owned(content));
    content.map_err(|what| format!("the row of the format version: {what}"))
}

/// Returns the record of a row that every store has.
pub(crate) fn meta<T: DeserializeOwned>(store: &dyn Store, key: &[u8]) -> Result<T, StoreError> {
    let missing = || {
        let row = String::from_utf8_lossy(key);
        StoreError::corrupt(store.path(), format!("row `{row}`: it is missing"))
    };
    optional_meta(store, key)?.ok_or_else(missing)
}

/// Returns the record of a row that a store may have.
pub(crate) fn optional_meta<T: DeserializeOwned>(
    store: &dyn Store,
    key: &[u8],
) -> Result<Option<T>, StoreError> {
    let Some(row) = store.get(key)? else {
        return Ok(None);
    };
    let content = unseal(key, &row).and_then(|(content, _)| decode_owned(content));
    content.map(Some).map_err(|what| {
        let row = String::from_utf8_lossy(key);
        StoreError::corrupt(store.path(), format!("row `{row}`: {what}"))
    })
}
