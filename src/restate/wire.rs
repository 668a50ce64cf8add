//! What the services say to each other: small, and without secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use restate_sdk::errors::HandlerError;
use serde::{Deserialize, Serialize};

use crate::engine::{Batch, BatchOutcome};
use crate::error::{Error, ErrorKind};
use crate::model::{Checkpoint, Position, Totals};
use crate::model::{OperationId, OperationIssue, OperationStatus, StoredDestination};

/// One run of an operation: its start is run 0, each resumption the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: OperationId,
    pub(crate) number: u64,
}

impl Run {
    /// The key that its workflow runs under.
    pub(crate) fn key(self) -> String {
        match self.number {
            0 => self.id.to_string(),
            number => format!("{}.{number}", self.id),
        }
    }
}

/// Where an operation's spec lies: it may hold a million identifiers, which no message takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpecRef {
    /// Its own name, so that starting an operation anew does not write over another's.
    pub(crate) name: OperationId,
    /// How many pieces it is in.
    pub(crate) pieces: u32,
}

/// How an operation is cut up. It travels with the operation, so that replaying one does not depend on what a worker
/// thinks today.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Batches under way at once, in each segment that has not been listed to its end.
    pub(crate) window: usize,
    /// Batches a segment holds at most.
    pub(crate) segment_batches: u64,
    /// Bytes of listed batches, as JSON, that a segment's journal holds at most, but for the last.
    pub(crate) segment_bytes: usize,
    /// How long the operation is remembered after its end.
    pub(crate) retention: Duration,
}

/// To an operation's object: there is a new one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) plan: Plan,
}

/// To an operation: go on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Resume {
    /// The checkpoint that was found, made to run again.
    pub(crate) reopened: Checkpoint,
    /// The run that was found.
    pub(crate) run: u64,
    /// That run's workflow is gone: somebody killed or purged it.
    pub(crate) is_abandoned: bool,
}

/// From a segment: so much of it is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) run: u64,
    pub(crate) segment: u64,
    pub(crate) batches: u64,
    pub(crate) totals: Totals,
}

/// From a workflow: everything up to here is done. With a status, the run has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) run: u64,
    /// Segments that are done.
    pub(crate) segments: u64,
    pub(crate) position: Position,
    pub(crate) totals: Totals,
    pub(crate) ended: Option<Ended>,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) status: OperationStatus,
    pub(crate) error: Option<OperationIssue>,
}

/// An operation as everybody reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) checkpoint: Checkpoint,
    /// The destination it is written to now.
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) run: u64,
    /// The invocation of that run's workflow.
    pub(crate) invocation: String,
}

/// What an operation answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer<T> {
    Done(T),
    /// There is no such operation.
    Unknown,
    /// Its state does not allow it.
    Conflict(String),
}

impl<T> Answer<T> {
    pub(crate) fn into_result(self) -> Result<T, Error> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Unknown => Err(Error::new(ErrorKind::NotFound, "there is no such operation")),
            Self::Conflict(message) => Err(Error::new(ErrorKind::Conflict, message)),
        }
    }
}

/// To a workflow: run this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRequest {
    pub(crate) run: Run,
    pub(crate) from: Position,
    pub(crate) totals: Totals,
    pub(crate) plan: Plan,
}

/// To a segment: list and export from here on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentRequest {
    pub(crate) run: Run,
    pub(crate) segment: u64,
    pub(crate) from: Position,
    pub(crate) plan: Plan,
    /// What is told where the listing stands once the segment's own part of it is done, so that the next segment
    /// begins while this one's last batches are under way.
    pub(crate) listed: String,
}

/// What became of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentOutcome {
    /// Of the batches up to `end`.
    pub(crate) totals: Totals,
    pub(crate) end: Position,
    /// Why `end` is not where the segment was to end.
    pub(crate) stopped: Option<Stopped>,
}

/// Why work ended before its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stopped {
    Canceled,
    Failed(OperationIssue),
}

impl Stopped {
    /// Something that the engine decided is fatal.
    pub(crate) fn failed(error: &Error) -> Self {
        tracing::warn!(kind = error.kind().as_str(), %error, "failed");
        Self::Failed(OperationIssue::from(error))
    }

    /// A call ended in an error of Restate's: a cancellation, or a callee that was tried as often as its policy has it.
    pub(crate) fn from_terminal(error: &restate_sdk::errors::TerminalError) -> Self {
        const CANCELED: u16 = 409;
        match error.code() {
            CANCELED => Self::Canceled,
            _ => Self::Failed(OperationIssue::new(
                ErrorKind::Internal.as_str(),
                "a step of the export was given up after many attempts",
            )),
        }
    }
}

/// A stretch of a listing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Listed {
    Batches {
        batches: Vec<Batch>,
        /// Their size as JSON, in bytes.
        bytes: usize,
        end: Position,
    },
    Stopped(Stopped),
}

/// To whoever exports batches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BatchRequest {
    pub(crate) run: Run,
    pub(crate) batch: Batch,
}

/// What became of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum BatchAnswer {
    Done(BatchOutcome),
    Stopped(Stopped),
}

/// What an operation's object keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Up to the segments that are done.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) plan: Plan,
    pub(crate) run: u64,
    pub(crate) invocation: String,
    /// Segments that are done in this run.
    pub(crate) segments: u64,
    /// Batches and counts of segments under way, by their number.
    pub(crate) under_way: BTreeMap<u64, (u64, Totals)>,
}

impl State {
    pub(crate) fn view(&self) -> View {
        let mut checkpoint = self.checkpoint.clone();
        for (_, totals) in self.under_way.values() {
            checkpoint.totals.add(totals);
        }
        View {
            destination: checkpoint.destination.clone().unwrap_or_else(|| self.destination.clone()),
            checkpoint,
            spec: self.spec.clone(),
            run: self.run,
            invocation: self.invocation.clone(),
        }
    }
}

/// Makes Restate try again, here or on another worker.
pub(crate) fn again(error: Error) -> HandlerError {
    tracing::debug!(kind = error.kind().as_str(), %error, "to be tried again");
    HandlerError::from(error)
}
