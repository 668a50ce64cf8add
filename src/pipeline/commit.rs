//! [`CommitQueue`]: finished batches on their way to the checkpoint.

use std::collections::VecDeque;

use crate::model::{Position, Totals};
use crate::pipeline::batch::BatchOutcome;
use crate::pipeline::log::LogBuffer;

/// Orders finished batches and collects the longest finished prefix for the next commit.
///
/// A commit has two steps: first the log lines, [`lines`](Self::lines), become durable; then
/// [`take`](Self::take) returns what the checkpoint moves by.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    finished: OrderedPrefix<(Position, BatchOutcome)>,
    totals: Totals,
    lines: LogBuffer,
    /// The position after the last batch in the queue.
    end: Option<Position>,
    /// The first batch that has not been committed.
    next_batch: u64,
    /// The number of batches that entered the prefix.
    batches: u64,
}

impl CommitQueue {
    pub(crate) fn starting_at(position: &Position) -> Self {
        Self {
            finished: OrderedPrefix::starting_at(position.batch),
            totals: Totals::default(),
            lines: LogBuffer::default(),
            end: None,
            next_batch: position.batch,
            batches: 0,
        }
    }

    /// Adds a finished batch and its end position.
    pub(crate) fn add(&mut self, number: u64, end: Position, outcome: BatchOutcome) {
        self.finished.insert(number, (end, outcome));
        while let Some((end, outcome)) = self.finished.pop() {
            self.totals.add(&outcome.totals);
            self.lines.extend(&outcome.lines);
            self.end = Some(end);
            self.batches += 1;
        }
    }

    /// Moves the end: the listing may have advanced over empty pages after its last batch.
    pub(crate) fn advance_to(&mut self, end: Position) {
        self.end = Some(end);
    }

    /// Returns whether there is something to commit.
    pub(crate) fn is_pending(&self) -> bool {
        self.end.is_some()
    }

    /// The lines that must be durable before the commit.
    pub(crate) fn lines(&self) -> &LogBuffer {
        &self.lines
    }

    pub(crate) fn lines_mut(&mut self) -> &mut LogBuffer {
        &mut self.lines
    }

    /// The first batch whose lines may be pending.
    pub(crate) fn next_batch(&self) -> u64 {
        self.next_batch
    }

    /// The number of batches that are finished without a gap.
    pub(crate) fn batches(&self) -> u64 {
        self.batches
    }

    /// The totals that are to be committed.
    #[cfg(feature = "restate")]
    pub(crate) fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Takes what is to be committed: the new position and the totals to add.
    pub(crate) fn take(&mut self) -> Option<(Position, Totals)> {
        let end = self.end.take()?;
        self.lines = LogBuffer::default();
        self.next_batch = end.batch;
        Some((end, std::mem::take(&mut self.totals)))
    }
}

/// Numbered items that arrive in any order and leave in order.
#[derive(Debug)]
pub(crate) struct OrderedPrefix<T> {
    next: u64,
    /// Slot `i` is item `next + i`.
    slots: VecDeque<Option<T>>,
}

impl<T> OrderedPrefix<T> {
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, slots: VecDeque::new() }
    }

    /// Inserts an item. One that has left already is ignored.
    pub(crate) fn insert(&mut self, number: u64, item: T) {
        let Some(index) = number.checked_sub(self.next) else { return };
        let index = index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(item);
    }

    /// Removes the next item, if it has arrived.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.next += 1;
        Some(item)
    }
}
