//! Keeps ready tasks in the order in which they go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::id::TaskId;

/// A task that is ready: higher priority first, then the higher rank, then the drawn tie, then
/// the older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadyTask {
    /// Priority, rank and tie, as a heap compares little else: the upper half first.
    order: [u64; 2],
    task: Reverse<TaskId>,
}

/// The rank of a task that others wait for; no other has it.
pub(super) const URGENT: u64 = u64::MAX;

impl ReadyTask {
    /// Returns the entry of a task; the tie is 0 unless ties are shuffled.
    pub(super) fn new(priority: i32, rank: u64, tie: u32, task: TaskId) -> Self {
        // With its sign turned, a priority is ordered as a number without sign.
        let priority = priority.cast_unsigned() ^ 1 << 31;
        let upper = u64::from(priority) << 32 | rank >> 32;
        let lower = rank << 32 | u64::from(tie);
        Self { order: [upper, lower], task: Reverse(task) }
    }

    pub(super) fn task(&self) -> TaskId {
        self.task.0
    }

    /// By which entries are sorted: numbers are compared without a branch, a list of them is not.
    fn key(&self) -> (u128, Reverse<TaskId>) {
        let [upper, lower] = self.order;
        (u128::from(upper) << 64 | u128::from(lower), self.task)
    }

    pub(super) fn is_urgent(&self) -> bool {
        let [upper, lower] = self.order;
        upper << 32 | lower >> 32 == URGENT
    }
}

/// The ready tasks of a role: the greatest goes first.
///
/// Of a graph very many become ready at once. They are sorted in one go, and each is then taken from the end
/// of a list, where a heap would move an entry of every level for it, each in another place of the memory.
/// What becomes ready later waits in a heap, until that is longer than the list.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    /// In ascending order.
    sorted: Vec<ReadyTask>,
    newer: BinaryHeap<ReadyTask>,
}

/// A heap that is shorter is quick.
const HEAP_MIN: usize = 64;

impl ReadyQueue {
    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.newer.len()
    }

    pub(super) fn push(&mut self, entry: ReadyTask) {
        self.newer.push(entry);
    }

    /// Returns the one that goes first.
    pub(super) fn peek(&mut self) -> Option<ReadyTask> {
        if self.newer.len() > self.sorted.len().max(HEAP_MIN) {
            self.sorted.extend(self.newer.drain());
            // A stable sort makes use of what is sorted already.
            self.sorted.sort_by_key(ReadyTask::key);
        }
        self.sorted.last().copied().max(self.newer.peek().copied())
    }

    /// Takes the one that goes first.
    pub(super) fn pop(&mut self) -> Option<ReadyTask> {
        let first = self.peek()?;
        if self.sorted.last() == Some(&first) { self.sorted.pop() } else { self.newer.pop() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::{Seed, Stream};
    use crate::id::{RunId, TaskIndex};

    #[test]
    fn ready_tasks_are_ordered_by_priority_rank_tie_and_age() {
        let entry = |priority, rank, tie, index| {
            let task = TaskId { run: RunId(0), index: TaskIndex(index) };
            ReadyTask::new(priority, rank, tie, task)
        };
        let ascending = [
            entry(i32::MIN, u64::MAX - 1, 9, 0),
            entry(-1, u64::MAX - 1, u32::MAX, 0),
            entry(0, 0, u32::MAX, 0),
            entry(0, 1, 0, 7),
            entry(0, 1, 0, 6),
            entry(0, 1, 1, 8),
            entry(1, 0, 0, 9),
            entry(i32::MAX, URGENT, 0, 9),
        ];

        assert!(ascending.is_sorted() && ascending.is_sorted_by_key(ReadyTask::key));
        assert_eq!(ascending.map(|entry| entry.is_urgent()).iter().filter(|is| **is).count(), 1);
    }

    #[test]
    fn queue_gives_out_what_a_heap_would() {
        let (mut queue, mut heap) = (ReadyQueue::default(), BinaryHeap::new());
        let drawn = |n: u32| Seed(3).bits(Stream::Order, 0, u64::from(n));
        for n in 0..20_000 {
            // Mostly in, then mostly out, again and again.
            if drawn(n) % 100 < if n % 4_000 < 2_500 { 90 } else { 5 } {
                let task = TaskId { run: RunId(0), index: TaskIndex(n) };
                let entry = ReadyTask::new(0, drawn(n) >> 50, 0, task);
                queue.push(entry);
                heap.push(entry);
            } else {
                assert_eq!(queue.peek(), heap.peek().copied());
                assert_eq!(queue.pop(), heap.pop());
            }
            assert_eq!(queue.len(), heap.len());
        }
    }
}
