//! [`Checkpoint`]: how far an operation has come.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::{Cursor, ListWarning};
use crate::model::{OperationContext, OperationIssue, OperationStatus, StoredDestination};

/// How far an operation has come: small, and saved at most every second.
///
/// Everything before its [`position`](Self::position) is exported or logged, and counted in its
/// [`totals`](Self::totals); nothing after it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Checkpoint {
    /// Which save this is, from 1; set by the store. 0 has not been stored.
    pub version: u64,
    /// When the operation was accepted. This and the next two are the spec's, so that a poll reads the checkpoint only:
    /// a spec may hold a million identifiers.
    pub created_time: Timestamp,
    /// The URL of `errors.log`, without a credential.
    pub error_href: String,
    /// What the host said of the operation.
    pub context: OperationContext,
    /// Where the operation stands.
    pub status: OperationStatus,
    /// When this was saved.
    pub last_updated_time: Timestamp,
    /// Up to where everything is done.
    pub position: Position,
    /// What has been done up to there.
    pub totals: Totals,
    /// How many instances the source thinks there are.
    pub estimate: Option<u64>,
    /// Why it failed.
    pub error: Option<OperationIssue>,
    /// What its owner should know, besides what `totals` tells.
    pub warnings: Vec<OperationIssue>,
    /// Who runs it.
    pub lease: Option<Lease>,
    /// Somebody wants it canceled.
    pub cancel_requested: bool,
    /// The destination it was resumed with, instead of the spec's: the same container, other credentials.
    pub destination: Option<StoredDestination>,
}

impl Checkpoint {
    /// The first one of an operation that is accepted now.
    pub fn first(now: Timestamp) -> Self {
        Self {
            version: 0,
            created_time: now,
            error_href: String::new(),
            context: OperationContext::default(),
            status: OperationStatus::NotStarted,
            last_updated_time: now,
            position: Position::default(),
            totals: Totals::default(),
            estimate: None,
            error: None,
            warnings: Vec::new(),
            lease: None,
            cancel_requested: false,
            destination: None,
        }
    }

    /// Whether somebody runs the operation now.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.lease.as_ref().is_some_and(|lease| lease.expires > now)
    }
}

/// A place in an operation's listing: everything before it has been handed out in batches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Position {
    /// The scope that is being listed: an index into the identifiers, 0 for everything.
    pub scope: u64,
    /// The cursor inside that scope; `None` is its beginning.
    pub after: Option<Cursor>,
    /// How many instances and failures that scope has given so far: a scope that ends with none matched nothing.
    pub found: u64,
    /// The number of the next batch.
    pub batch: u64,
    /// Whether the listing has come to its end.
    pub done: bool,
}

/// What has been counted so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Totals {
    /// Instances that are in the container.
    pub exported: u64,
    /// What is named in `errors.log` instead.
    pub skipped: u64,
    /// Bytes of the exported instances.
    pub bytes: u64,
    /// Listing warnings by their code: the message, and how many.
    pub warnings: BTreeMap<String, (String, u64)>,
}

impl Totals {
    /// Adds a listing's warning.
    pub fn warn(&mut self, warning: &ListWarning) {
        let message = || (warning.message.clone().into_owned(), 0);
        self.warnings.entry(warning.code.clone().into_owned()).or_insert_with(message).1 += warning.count;
    }

    /// Adds another's counts to these.
    pub fn add(&mut self, other: &Totals) {
        self.exported += other.exported;
        self.skipped += other.skipped;
        self.bytes += other.bytes;
        for (code, (message, count)) in &other.warnings {
            self.warnings.entry(code.clone()).or_insert_with(|| (message.clone(), 0)).1 += count;
        }
    }
}

/// Who runs an operation, and until when unless renewed: another may take a lapsed one over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lease {
    /// The runner.
    pub holder: String,
    /// When it lapses.
    pub expires: Timestamp,
}

impl Lease {
    /// For this runner, from now on for so long.
    pub fn new(holder: impl Into<String>, now: Timestamp, term: Duration) -> Self {
        Self { holder: holder.into(), expires: (now.to_utc() + term).into() }
    }
}
