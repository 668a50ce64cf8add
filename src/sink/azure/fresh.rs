//! [`FreshOperations`]: operations of which no blob can exist that was not confirmed.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::model::BlobPath;
use crate::sync::lock;

/// Operations that were started with this sink, and whose requests all had clear outcomes.
///
/// Only an operation itself writes below its prefix. If its container is immutable, a refusal to replace a blob therefore
/// says that the blob is stored already: by a request whose response was lost, by a put that was canceled, or by an earlier
/// run. In a fresh operation none of these can be the case, so there the same refusal is a failure.
#[derive(Debug, Default)]
pub(super) struct FreshOperations(Mutex<HashSet<String>>);

impl FreshOperations {
    /// Records that the operation of this log is new.
    pub(super) fn insert(&self, log: &BlobPath) {
        lock(&self.0).insert(operation(log).to_owned());
    }

    /// Whether the operation of this blob is fresh.
    pub(super) fn contains(&self, path: &BlobPath) -> bool {
        lock(&self.0).contains(operation(path))
    }

    /// Forgets the operation of this blob or log.
    pub(super) fn remove(&self, path: &BlobPath) {
        lock(&self.0).remove(operation(path));
    }

    /// Starts a request. Unless its outcome is recorded as clear, the operation is not fresh after it.
    pub(super) fn start_request<'a>(&'a self, path: &'a BlobPath) -> PendingRequest<'a> {
        PendingRequest { operations: self, path, is_clear: false }
    }
}

/// A request without a clear outcome.
pub(super) struct PendingRequest<'a> {
    operations: &'a FreshOperations,
    path: &'a BlobPath,
    is_clear: bool,
}

impl PendingRequest<'_> {
    /// Records that it is known whether the request was carried out.
    pub(super) fn clear(mut self) {
        self.is_clear = true;
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        if !self.is_clear {
            self.operations.remove(self.path);
        }
    }
}

/// The operation's id, with which each path begins.
fn operation(path: &BlobPath) -> &str {
    path.as_str().split('/').next().unwrap_or_default()
}
