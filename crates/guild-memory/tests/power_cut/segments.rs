//! What the segments of sled's log say in a trace, and whether it is true.
//!
//! A segment begins with a checksum, its place in the log, and how much of the log is on the disk, the last
//! two inverted; one without use has zeros. sled reads what is said to be there without looking for holes.

use std::collections::{BTreeMap, BTreeSet};

use crate::images::{Operation, Step};

/// As the store sets it.
const SEGMENT_BYTES: usize = 8 << 20;

/// The segments that were begun in a trace.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) begun: usize,
    /// Where in the file they are.
    pub(crate) places: BTreeSet<usize>,
    /// The steps after which as much as ever of a segment and of what is before it is not synced.
    pub(crate) last_unsynced: BTreeSet<usize>,
    /// What is said to be on the disk and was not synced.
    pub(crate) untrue: Vec<String>,
}

impl Segments {
    pub(crate) fn of(steps: &[Step]) -> Self {
        let mut segments = Self::default();
        let (mut places_in_log, mut unsynced, mut has_begun) = (BTreeMap::new(), Vec::new(), false);
        for (number, step) in
            steps.iter().enumerate().filter(|(_, step)| step.name.ends_with("/db"))
        {
            match &step.operation {
                Operation::Write { at, data } => {
                    if let Some((place_in_log, on_disk)) = header(*at, data) {
                        segments.begun += 1;
                        segments.places.insert(*at);
                        places_in_log.insert(*at, place_in_log);
                        has_begun = true;
                        if let Some(lost) = unsynced.iter().find(|lost| **lost <= on_disk) {
                            let said = format!("step {number}: {on_disk} on the disk, not {lost}");
                            segments.untrue.push(said);
                        }
                    }
                    let within = at % SEGMENT_BYTES;
                    if let Some(place_in_log) = places_in_log.get(&(at - within)) {
                        unsynced.push(place_in_log + i64::try_from(within).unwrap());
                    }
                }
                Operation::Sync => {
                    if std::mem::take(&mut has_begun) {
                        segments.last_unsynced.insert(number - 1);
                    }
                    unsynced.clear();
                }
                _ => {}
            }
        }
        segments
    }
}

/// Returns where a segment is in the log, and how much of the log is on the disk, if a write begins one.
fn header(at: usize, data: &[u8]) -> Option<(i64, i64)> {
    let number = |from: usize| {
        let bytes = data.get(from..from + 8)?.try_into().ok()?;
        Some(i64::from_le_bytes(bytes) ^ i64::MAX)
    };
    let begun = (number(4)?, number(12)?);
    (at.is_multiple_of(SEGMENT_BYTES) && begun.0 != i64::MAX).then_some(begun)
}
