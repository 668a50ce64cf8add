//! The messages that the services exchange. They are small, and contain no secrets.

use std::collections::BTreeMap;
use std::time::Duration;

use restate_sdk::errors::{HandlerError, TerminalError};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::model::{
    Checkpoint, OperationId, OperationIssue, OperationStatus, Position, StoredDestination, Totals,
};
use crate::pipeline::{Batch, BatchOutcome, log_failure, operation_span};

/// The name of the object that holds an operation.
pub(crate) const OPERATION_SERVICE: &str = "ExportOperation";

/// The name of the object that holds a piece of a spec.
pub(crate) const SPEC_SERVICE: &str = "ExportSpec";

/// The state key by which operations are listed: the creation time and the id.
pub(crate) const LISTED_KEY: &str = "listed";

/// One run of an operation: the start is run 0, each resumption is the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: OperationId,
    pub(crate) number: u64,
}

impl Run {
    /// The key of the run's workflow.
    pub(crate) fn key(self) -> String {
        match self.number {
            0 => self.id.to_string(),
            number => format!("{}.{number}", self.id),
        }
    }
}

/// A reference to an operation's spec, which may hold a million identifiers and is stored in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SpecRef {
    /// A random name, so that a repeated start does not overwrite another start's pieces.
    pub(crate) name: OperationId,
    /// The number of pieces.
    pub(crate) pieces: u32,
}

impl SpecRef {
    /// Returns the keys of the pieces.
    pub(crate) fn keys(&self, id: OperationId) -> impl Iterator<Item = String> + use<> {
        let name = self.name;
        (0..self.pieces).map(move |piece| format!("{id}.{name}.{piece}"))
    }
}

/// How an operation is divided. It is stored with the operation, so that a replay does not depend on a worker's version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The number of batches in progress in each segment that is still listing.
    pub(crate) window: usize,
    /// The maximum number of batches of a segment.
    pub(crate) segment_batches: u64,
    /// The maximum number of bytes of listed batches, as JSON, in a segment's journal, except for the last chunk.
    pub(crate) segment_bytes: usize,
    /// How long the operation is kept after its end.
    pub(crate) retention: Duration,
}

/// Creates an operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Create {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) plan: Plan,
}

/// Resumes an operation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Resume {
    /// The checkpoint that the caller read, reopened.
    pub(crate) reopened: Checkpoint,
    /// The run that the caller read.
    pub(crate) run: u64,
    /// Whether that run's workflow was killed or purged.
    pub(crate) is_abandoned: bool,
}

/// The progress of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) run: u64,
    pub(crate) segment: u64,
    pub(crate) batches: u64,
    pub(crate) totals: Totals,
}

/// The finished prefix of a run; with `ended`, the run has ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) run: u64,
    /// The number of finished segments.
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

/// An operation as clients and workers read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) checkpoint: Checkpoint,
    /// The current destination.
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) run: u64,
    /// The invocation id of that run's workflow; empty while it is being started.
    pub(crate) invocation: String,
    /// Whether the workflow has begun.
    pub(crate) has_begun: bool,
}

/// The reply of an operation's object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply<T> {
    Done(T),
    /// The operation does not exist.
    Unknown,
    /// The operation's state does not allow the request.
    Conflict(String),
}

impl<T> Reply<T> {
    pub(crate) fn into_result(self) -> Result<T, Error> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Unknown => Err(Error::new(ErrorKind::NotFound, "the operation does not exist")),
            Self::Conflict(message) => Err(Error::new(ErrorKind::Conflict, message)),
        }
    }
}

/// Starts a workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRequest {
    pub(crate) run: Run,
    pub(crate) from: Position,
    pub(crate) totals: Totals,
    pub(crate) plan: Plan,
}

/// Starts a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentRequest {
    pub(crate) run: Run,
    pub(crate) segment: u64,
    pub(crate) from: Position,
    pub(crate) plan: Plan,
    /// The awakeable that receives the segment's last position when it has listed its part, so that the next segment
    /// starts while the last batches of this one are in progress.
    pub(crate) listed: String,
}

/// The outcome of a segment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SegmentOutcome {
    /// The totals of the batches before `end`.
    pub(crate) totals: Totals,
    pub(crate) end: Position,
    /// Why the segment stopped before its end, if it did.
    pub(crate) stopped: Option<Stopped>,
}

/// Why work stopped before its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stopped {
    Canceled,
    Failed(OperationIssue),
}

impl Stopped {
    /// Logs an error that fails the operation.
    pub(crate) fn failed(run: Run, error: &Error) -> Self {
        Self::Failed(operation_span(run.id).in_scope(|| log_failure(error)))
    }

    /// A call ended with an error of Restate's: a cancellation, or the callee used up its attempts.
    pub(crate) fn from_terminal(error: &TerminalError) -> Self {
        const CANCELED: u16 = 409;
        match error.code() {
            CANCELED => Self::Canceled,
            _ => Self::Failed(OperationIssue::new(
                ErrorKind::Internal.as_str(),
                "a step of the export failed after many attempts",
            )),
        }
    }
}

/// A chunk of a listing.
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

/// Exports a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BatchRequest {
    pub(crate) run: Run,
    pub(crate) batch: Batch,
}

/// The outcome of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum BatchReply {
    Done(BatchOutcome),
    Stopped(Stopped),
}

/// The state of an operation's object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OperationState {
    /// Of the finished segments.
    pub(crate) checkpoint: Checkpoint,
    pub(crate) destination: StoredDestination,
    pub(crate) spec: SpecRef,
    pub(crate) plan: Plan,
    pub(crate) run: u64,
    pub(crate) invocation: String,
    pub(crate) has_begun: bool,
    /// The number of finished segments of this run.
    pub(crate) segments: u64,
    /// The batches and totals of segments in progress, by segment number.
    pub(crate) in_progress: BTreeMap<u64, (u64, Totals)>,
}

impl OperationState {
    pub(crate) fn view(&self) -> View {
        let mut checkpoint = self.checkpoint.clone();
        for (_, totals) in self.in_progress.values() {
            checkpoint.totals.add(totals);
        }
        View {
            destination: checkpoint.destination.clone().unwrap_or_else(|| self.destination.clone()),
            checkpoint,
            spec: self.spec.clone(),
            run: self.run,
            invocation: self.invocation.clone(),
            has_begun: self.has_begun,
        }
    }
}

/// Makes Restate retry, on this or another worker.
pub(crate) fn retryable(error: Error) -> HandlerError {
    tracing::debug!(kind = error.kind().as_str(), error = %error.report(), "Restate retries a step");
    HandlerError::from(error)
}
