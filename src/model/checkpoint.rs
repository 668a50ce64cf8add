//! [`Checkpoint`]: the progress of an operation, as it is stored.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Cursor, ListWarning, OperationContext, OperationIssue, OperationStatus, RecordFormat, StoredDestination,
    Timestamp,
};

/// The progress of an operation: small, and saved repeatedly while the operation runs.
///
/// Everything before its [`position`](Self::position) is exported or logged, and counted in its
/// [`totals`](Self::totals). Nothing after it is counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Checkpoint {
    #[serde(default)]
    pub(crate) format: RecordFormat,
    /// The number of this save, starting at 1; set by the store. 0: not stored yet.
    pub version: u64,
    /// When the operation was accepted. This and the next two are copies from the spec, so that a poll reads only the
    /// checkpoint: a spec may contain a million identifiers.
    pub created_time: Timestamp,
    /// The URL of `errors.log`, without a credential.
    #[serde(default)]
    pub error_href: String,
    /// The context that the host has given the operation.
    #[serde(default)]
    pub context: OperationContext,
    /// The state of the operation.
    pub status: OperationStatus,
    /// When this checkpoint was saved, which each renewal of the lease does.
    pub last_updated_time: Timestamp,
    /// When a transfer, a request or a listing page was last finished, to within the interval between saves. `None`: not
    /// yet, or the record is from a version that did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Timestamp>,
    /// The name of the runner that runs the operation, or ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// The position in the listing up to which everything is done.
    pub position: Position,
    /// The counts up to that position.
    pub totals: Totals,
    /// The source's estimate of the number of instances.
    pub estimate: Option<u64>,
    /// Why the operation failed.
    pub error: Option<OperationIssue>,
    /// Warnings for the owner of the operation, besides those in `totals`.
    #[serde(default)]
    pub warnings: Vec<OperationIssue>,
    /// The runner that currently runs the operation.
    pub lease: Option<Lease>,
    /// Whether cancellation has been requested.
    #[serde(default)]
    pub cancel_requested: bool,
    /// Whether a pause has been requested of the runner.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause_requested: bool,
    /// The limit on the bytes of instances that the operation transfers per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// Whether the host's observer is still to be told that the operation has ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_pending: bool,
    /// The destination that replaces the spec's after a resumption: the same container, new credentials.
    pub destination: Option<StoredDestination>,
}

impl Checkpoint {
    /// The first checkpoint of an operation that is accepted at `now`.
    pub fn first(now: Timestamp) -> Self {
        Self {
            format: RecordFormat,
            version: 0,
            created_time: now,
            error_href: String::new(),
            context: OperationContext::default(),
            status: OperationStatus::NotStarted,
            last_updated_time: now,
            last_progress_time: None,
            runner: None,
            position: Position::default(),
            totals: Totals::default(),
            estimate: None,
            error: None,
            warnings: Vec::new(),
            lease: None,
            cancel_requested: false,
            pause_requested: false,
            bytes_per_second: None,
            end_pending: false,
            destination: None,
        }
    }

    /// Ends the operation. `has_observer`: whether somebody is to be told.
    pub(crate) fn end(&mut self, status: OperationStatus, error: Option<OperationIssue>, has_observer: bool) {
        self.status = status;
        self.error = error;
        self.lease = None;
        self.end_pending = has_observer;
        self.last_updated_time = Timestamp::now();
    }

    /// Pauses the operation.
    pub(crate) fn pause(&mut self) {
        self.status = OperationStatus::Paused;
        self.lease = None;
        self.pause_requested = false;
        self.last_updated_time = Timestamp::now();
    }

    /// Whether a runner holds the operation at `now`.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.expires > now)
    }
}

/// A position in an operation's listing: the start of the next batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Position {
    /// The scope that is listed next: an index into the identifiers, 0 for everything.
    pub scope: u64,
    /// The cursor inside that scope; `None` at its beginning.
    pub after: Option<Cursor>,
    /// How many instances and failures that scope has returned so far. A scope that ends with 0 matched nothing.
    pub found: u64,
    /// The number of the next batch.
    pub batch: u64,
    /// Whether the listing is complete.
    pub done: bool,
}

/// The counts of an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Totals {
    /// Instances that are in the container.
    pub exported: u64,
    /// Instances and identifiers that are named in `errors.log` instead.
    pub skipped: u64,
    /// The total size of the exported instances in bytes.
    pub bytes: u64,
    /// Listing warnings by code: the message, and the count.
    #[serde(default)]
    pub warnings: BTreeMap<String, (String, u64)>,
}

impl Totals {
    /// Adds a warning from a listing.
    pub fn warn(&mut self, warning: &ListWarning) {
        let message = || (warning.message.clone().into_owned(), 0);
        self.warnings.entry(warning.code.clone().into_owned()).or_insert_with(message).1 += warning.count;
    }

    /// Adds the counts of `other`.
    pub fn add(&mut self, other: &Totals) {
        self.exported += other.exported;
        self.skipped += other.skipped;
        self.bytes += other.bytes;
        for (code, (message, count)) in &other.warnings {
            self.warnings.entry(code.clone()).or_insert_with(|| (message.clone(), 0)).1 += count;
        }
    }
}

/// The claim of a runner on an operation. Another runner may take the operation over once the lease has expired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The name of the runner.
    pub holder: String,
    /// When the lease expires unless it is renewed.
    pub expires: Timestamp,
}

impl Lease {
    /// A lease for `holder` that expires `duration` after `now`.
    pub fn new(holder: impl Into<String>, now: Timestamp, duration: Duration) -> Self {
        Self { holder: holder.into(), expires: now.saturating_add(duration) }
    }
}
