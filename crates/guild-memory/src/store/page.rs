//! Packs rows into pages, for an engine to which each row by itself is dear.
//!
//! A page holds the rows of a range of keys, ascending, in the form of a batch. Its key is where the
//! range begins, and the key of the next page is where it ends; the first page has the empty key. Whoever
//! has many changes makes them in the order of their keys, so each page is read and written once.
//!
//! A crash may leave any beginning of the writes of one change, so their order is chosen for that. Pages
//! are written from the last one back and dropped after all of them: what moves to another page is there
//! before it goes here. What then lies here behind the end of the page, a copy, is not seen and
//! never comes to light: a page is dropped only by the page before it, which is written without such rows
//! first. The changes themselves are made again in full, for they are in the journal.

use std::io;
use std::ops::{Bound, Range};

use super::batch::{Rows, push_row};
use super::{Visit, ram};

/// A page is cut behind so many bytes of rows: more cost more where few rows of each page change, less
/// cost more for what the engine does for each page.
const CUT_AT_BYTES: usize = 8 << 10;
/// What a page may have at most, unless it is a single row.
const BYTES_MAX: usize = 2 * CUT_AT_BYTES;
/// A page that is changed and has less than this is joined with the next one.
const BYTES_MIN: usize = CUT_AT_BYTES / 4;

/// The key of a row, and its new value, or none where it is removed.
pub(super) type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// The key of a page and its rows, if there is such a page.
pub(super) type Found<P> = Result<Option<(Bytes<P>, Bytes<P>)>, <P as Pages>::Error>;
type Bytes<P> = <P as Pages>::Bytes;

/// The pages of an engine, by their keys.
pub(super) trait Pages: Sized {
    /// A key or the rows of a page.
    type Bytes: AsRef<[u8]>;
    /// Why a page cannot be read or written.
    type Error: From<io::Error>;

    /// Returns the last page whose key is not greater; none: there is no page.
    fn at(&self, key: &[u8]) -> Found<Self>;

    /// Returns the first page whose key is greater.
    fn after(&self, key: &[u8]) -> Found<Self>;

    /// Writes a page.
    fn put(&mut self, key: &[u8], rows: &[u8]) -> Result<(), Self::Error>;

    /// Drops a page.
    fn remove(&mut self, key: &[u8]) -> Result<(), Self::Error>;
}

/// Returns the value of a row.
pub(super) fn get<P: Pages>(pages: &P, key: &[u8]) -> Result<Option<Vec<u8>>, P::Error> {
    let Some((_, page)) = pages.at(key)? else {
        return Ok(None);
    };
    for row in Places::of(page.as_ref()) {
        let row = row?;
        if row.key == key {
            return Ok(Some(row.value.to_vec()));
        }
    }
    Ok(None)
}

/// Visits the rows between two keys in ascending order until `each` breaks. Of changes that are made meanwhile,
/// by one call of [`store`], some are seen and others are not.
pub(super) fn scan<P: Pages>(
    pages: &P,
    from: Bound<&[u8]>,
    to: Bound<&[u8]>,
    each: Visit<'_>,
) -> Result<(), P::Error> {
    let mut place = match from {
        Bound::Included(key) | Bound::Excluded(key) => key.to_vec(),
        Bound::Unbounded => Vec::new(),
    };
    let mut is_over = ram::is_empty(from, to);
    while !is_over && let Some((page, end)) = at_one_time(pages, &place)? {
        let end = end.as_ref().map(AsRef::as_ref);
        for row in Places::of(page.as_ref()) {
            let row = row?;
            if end.is_some_and(|end| row.key >= end) || is_behind(row.key, to) {
                break;
            }
            if row.key < place.as_slice() || is_before(row.key, from) {
                continue;
            }
            if each(row.key, row.value).is_break() {
                return Ok(());
            }
        }
        is_over = end.is_none_or(|end| is_behind(end, to));
        place = end.unwrap_or_default().to_vec();
    }
    Ok(())
}

/// The rows of a page, and where it ends.
type PageAndEnd<P> = (Bytes<P>, Option<Bytes<P>>);

/// Returns the page of a key and the key of the next page. When the next page was dropped in between,
/// this one has its rows, and is read once more.
fn at_one_time<P: Pages>(pages: &P, key: &[u8]) -> Result<Option<PageAndEnd<P>>, P::Error> {
    let mut found = pages.at(key)?;
    while let Some((first, rows)) = found {
        let end = pages.after(first.as_ref())?.map(|(key, _)| key);
        let again = pages.at(key)?;
        let is_same = |(key, other): &(Bytes<P>, Bytes<P>)| {
            key.as_ref() == first.as_ref() && other.as_ref() == rows.as_ref()
        };
        if again.as_ref().is_some_and(is_same) {
            return Ok(Some((rows, end)));
        }
        found = again;
    }
    Ok(None)
}

/// Returns the last change of each row, in the order of their keys, of changes in the order in which they
/// were made.
pub(super) fn newest<'a>(changes: impl Iterator<Item = Change<'a>>) -> Vec<Change<'a>> {
    let mut changes: Vec<Change<'a>> = changes.collect();
    changes.sort_by_key(|(key, _)| *key);
    changes.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same {
            *earlier = *later;
        }
        is_same
    });
    changes
}

fn is_before(key: &[u8], from: Bound<&[u8]>) -> bool {
    match from {
        Bound::Included(from) => key < from,
        Bound::Excluded(from) => key <= from,
        Bound::Unbounded => false,
    }
}

fn is_behind(key: &[u8], to: Bound<&[u8]>) -> bool {
    match to {
        Bound::Included(to) => key > to,
        Bound::Excluded(to) => key >= to,
        Bound::Unbounded => false,
    }
}

/// What a change did to pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exchanged {
    /// Bytes of the pages that were written.
    pub(super) written: usize,
    /// Bytes of those in whose place they are, and of those that were dropped.
    pub(super) replaced: usize,
}

/// Returns the bytes of all pages.
pub(super) fn size_bytes<P: Pages>(pages: &P) -> Result<u64, P::Error> {
    let (mut bytes, mut page) = (0, pages.at(&[])?);
    while let Some((key, rows)) = page {
        bytes += rows.as_ref().len() as u64;
        page = pages.after(key.as_ref())?;
    }
    Ok(bytes)
}

/// Makes changes, which are in ascending order of distinct keys.
pub(super) fn store<P: Pages>(
    pages: &mut P,
    mut changes: &[Change<'_>],
) -> Result<Exchanged, P::Error> {
    let (mut rows, mut exchanged) = (Vec::new(), Exchanged::default());
    while let Some((first, _)) = changes.first() {
        rows.clear();
        let found = pages.at(first)?;
        let (is_new, mut dropped) = (found.is_none(), Vec::new());
        let page = found.as_ref().map_or(&[][..], |(_, page)| page.as_ref());
        let key = found.as_ref().map_or(&[][..], |(key, _)| key.as_ref());
        let mut next = pages.after(key)?;
        let mut replaced = page.len();
        changes = change(page, end_of(&next), changes, &mut rows)?;
        while rows.len() < BYTES_MIN
            && let Some((key, page)) = next
        {
            next = pages.after(key.as_ref())?;
            replaced += page.as_ref().len();
            changes = change(page.as_ref(), end_of(&next), changes, &mut rows)?;
            dropped.push(key);
        }
        if is_new && rows.is_empty() {
            continue;
        }
        replace(pages, key, &rows, &dropped)?;
        exchanged.written += rows.len();
        exchanged.replaced += replaced;
    }
    Ok(exchanged)
}

/// Writes rows in the place of a page and of those behind it, whose keys are `dropped`.
fn replace<P: Pages>(
    pages: &mut P,
    key: &[u8],
    rows: &[u8],
    dropped: &[Bytes<P>],
) -> Result<(), P::Error> {
    let pieces = cut(rows)?;
    let key_of = |place: usize| match place {
        0 => key,
        _ => first_key(&rows[pieces[place].clone()]),
    };
    for (place, piece) in pieces.iter().enumerate().rev() {
        pages.put(key_of(place), &rows[piece.clone()])?;
    }
    let mut kept = (1..pieces.len()).map(key_of).peekable();
    for key in dropped.iter().map(AsRef::as_ref) {
        while kept.next_if(|kept| *kept < key).is_some() {}
        if kept.peek() != Some(&key) {
            pages.remove(key)?;
        }
    }
    Ok(())
}

fn end_of<B: AsRef<[u8]>>(next: &Option<(B, B)>) -> Option<&[u8]> {
    next.as_ref().map(|(key, _)| key.as_ref())
}

/// Appends the rows of a page with the changes before its end; returns the other changes. Rows that do
/// not change are copied as they lie.
fn change<'a, 'b>(
    page: &[u8],
    end: Option<&[u8]>,
    changes: &'a [Change<'b>],
    rows: &mut Vec<u8>,
) -> io::Result<&'a [Change<'b>]> {
    let ours = end.map_or(changes.len(), |end| changes.partition_point(|(key, _)| *key < end));
    let (mut ours, others) = changes.split_at(ours);
    let mut copied = 0;
    for row in Places::of(page) {
        let row = row?;
        if end.is_some_and(|end| row.key >= end) {
            rows.extend_from_slice(&page[copied..row.place.start]);
            copied = page.len();
            break;
        }
        while let Some(((key, value), later)) = ours.split_first()
            && *key <= row.key
        {
            rows.extend_from_slice(&page[copied..row.place.start]);
            copied = if *key == row.key { row.place.end } else { row.place.start };
            if let Some(value) = value {
                push_row(rows, key, Some(value));
            }
            ours = later;
        }
    }
    rows.extend_from_slice(&page[copied..]);
    for (key, value) in ours {
        if let Some(value) = value {
            push_row(rows, key, Some(value));
        }
    }
    Ok(others)
}

/// Cuts rows into pages, at least one.
fn cut(rows: &[u8]) -> io::Result<Vec<Range<usize>>> {
    let (mut pieces, mut from) = (Vec::new(), 0);
    if rows.len() > BYTES_MAX {
        for row in Places::of(rows) {
            let place = row?.place;
            let is_full = place.start - from >= CUT_AT_BYTES || place.end - from > BYTES_MAX;
            if is_full && place.start > from {
                pieces.push(from..place.start);
                from = place.start;
            }
        }
    }
    pieces.push(from..rows.len());
    Ok(pieces)
}

fn first_key(rows: &[u8]) -> &[u8] {
    Rows(rows).next().map_or(&[], |(key, _)| key)
}

/// A row, and where in its page it lies.
struct Row<'a> {
    key: &'a [u8],
    value: &'a [u8],
    place: Range<usize>,
}

/// The rows of a page; an error where it is not made of whole rows.
struct Places<'a> {
    rows: Rows<'a>,
    length: usize,
}

impl<'a> Places<'a> {
    fn of(page: &'a [u8]) -> Self {
        Self { rows: Rows(page), length: page.len() }
    }
}

impl<'a> Iterator for Places<'a> {
    type Item = io::Result<Row<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let start = self.length - self.rows.0.len();
        if let Some((key, Some(value))) = self.rows.next() {
            return Some(Ok(Row { key, value, place: start..self.length - self.rows.0.len() }));
        }
        if start == self.length {
            return None;
        }
        self.rows.0 = &[];
        Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a page of rows is damaged")))
    }
}

#[cfg(test)]
mod tests;
