//! Publishes the event log to readers inside the process.
//!
//! Only records that reached the durability level get here. Recent ones stay in RAM within a
//! bound; a reader that falls behind it is told so and blocks nobody.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use guild_core::event::EventRecord;

use crate::signal::Signal;

/// The recent part of the event log; every clone is the same log.
#[derive(Clone)]
pub(crate) struct EventLog(Arc<Shared>);

struct Shared {
    recent: Mutex<Recent>,
    last: Signal<Last>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    seq: u64,
    closed: bool,
}

struct Recent {
    records: VecDeque<EventRecord>,
    records_max: usize,
}

impl EventLog {
    /// Returns a log that keeps this many records, with those of before.
    pub(crate) fn new(records_max: usize, mut before: Vec<EventRecord>) -> Self {
        let seq = before.last().map_or(0, |record| record.seq);
        let mut recent = Recent { records: VecDeque::new(), records_max };
        recent.extend(&mut before);
        let last = Signal::new(Last { seq, closed: false });
        Self(Arc::new(Shared { recent: Mutex::new(recent), last }))
    }

    /// Publishes records, in order and without a gap to those before; none are left.
    pub(crate) fn publish(&self, records: &mut Vec<EventRecord>) {
        let Some(seq) = records.last().map(|record| record.seq) else {
            return;
        };
        self.recent().extend(records);
        self.0.last.change(|last| {
            last.seq = seq;
            true
        });
    }

    /// Ends the log: readers that have seen everything get `None`.
    pub(crate) fn close(&self) {
        self.0.last.change(|last| !std::mem::replace(&mut last.closed, true));
    }

    /// Returns a reader that begins at `from` (1 is the first record).
    pub(crate) fn reader(&self, from: u64) -> Events {
        Events { log: self.clone(), next: from.max(1), waiting: None, batch: VecDeque::new() }
    }

    /// Returns up to `count_max` records from `from` on, or why there are none.
    fn read(&self, from: u64, count_max: usize) -> Result<VecDeque<EventRecord>, Lagged> {
        let recent = self.recent();
        let Some(first) = recent.records.front().map(|record| record.seq) else {
            return Ok(VecDeque::new());
        };
        if from < first {
            return Err(Lagged { next: first });
        }
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        Ok(recent.records.iter().skip(skip).take(count_max).cloned().collect())
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Adds records; none are left.
    fn extend(&mut self, records: &mut Vec<EventRecord>) {
        // What would leave at once does not come in.
        let passed = records.len().saturating_sub(self.records_max);
        records.drain(..passed);
        self.records.extend(records.drain(..));
        let excess = self.records.len().saturating_sub(self.records_max);
        self.records.drain(..excess);
    }
}

/// A reader was too slow: the records before `next` have left RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reader fell behind: the oldest event still in memory is number {next}")]
pub struct Lagged {
    /// The oldest record that can still be read; reading goes on there.
    pub next: u64,
}

/// Reads the event log, from a number on, as it grows.
///
/// It is a [`Stream`] and has an async [`Events::next`]. It ends when the guild has shut down.
pub struct Events {
    log: EventLog,
    next: u64,
    batch: VecDeque<EventRecord>,
    waiting: Option<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Events {
    /// Returns the next record; `None` when the guild has shut down and all were read.
    ///
    /// # Errors
    /// [`Lagged`] when the records have left RAM; the next call goes on with the oldest there is.
    pub async fn next(&mut self) -> Option<Result<EventRecord, Lagged>> {
        std::future::poll_fn(|cx| self.poll_record(cx)).await
    }

    /// Returns the records that are there now, without waiting.
    ///
    /// # Errors
    /// [`Lagged`] when the records have left RAM; the next call goes on with the oldest there is.
    pub fn available(&mut self) -> Result<Vec<EventRecord>, Lagged> {
        let mut records = Vec::from(std::mem::take(&mut self.batch));
        loop {
            let more =
                self.log.read(self.next, READ_MAX).inspect_err(|lag| self.next = lag.next)?;
            let Some(last) = more.back() else {
                return Ok(records);
            };
            self.next = last.seq + 1;
            records.extend(more);
        }
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<EventRecord, Lagged>>> {
        loop {
            if let Some(record) = self.batch.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            let last = self.log.0.last.look(|last| *last);
            if last.seq >= self.next {
                match self.log.read(self.next, READ_MAX) {
                    Err(lagged) => {
                        self.next = lagged.next;
                        return Poll::Ready(Some(Err(lagged)));
                    }
                    Ok(batch) => {
                        self.next += batch.len() as u64;
                        self.batch = batch;
                        continue;
                    }
                }
            }
            if last.closed {
                return Poll::Ready(None);
            }
            let next = self.next;
            let waiting = self.waiting.get_or_insert_with(|| {
                let last = self.log.0.last.clone();
                let has_more = move |last: &Last| (last.seq >= next || last.closed).then_some(());
                Box::pin(async move { last.find(has_more).await })
            });
            match waiting.as_mut().poll(cx) {
                Poll::Ready(()) => self.waiting = None,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Events {
    type Item = Result<EventRecord, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(cx)
    }
}

/// Records that a reader takes at once.
const READ_MAX: usize = 1_024;
