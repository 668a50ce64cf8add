//! [`OperationFilter`]: which operations a query returns.

use crate::model::{Checkpoint, OperationKey, OperationStatus, Timestamp};

/// A filter for [`OperationStore::query`](crate::store::OperationStore::query). An operation must fulfill all conditions.
///
/// ```
/// use dicom_export::store::{Checkpoint, OperationFilter};
/// use dicom_export::Timestamp;
///
/// // At most 100 operations that have not ended and that no runner holds.
/// let now = Timestamp::now();
/// let orphaned = OperationFilter::new(100).unfinished_only().lease_lapsed_at(now);
/// assert!(orphaned.matches(&Checkpoint::first(now)));
/// assert!(!orphaned.partition("north").matches(&Checkpoint::first(now)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct OperationFilter {
    /// Only operations that have not started or are running; not those that are paused. Default: false.
    pub unfinished_only: bool,
    /// Only operations that no runner holds at this time: without a lease, or with one that has lapsed. Default: `None`.
    pub lease_lapsed_at: Option<Timestamp>,
    /// Only operations of this partition. Default: `None`.
    pub partition: Option<String>,
    /// Only operations with this status. Default: `None`.
    pub status: Option<OperationStatus>,
    /// Only operations whose end is still to be delivered to the observer. Default: false.
    pub end_pending_only: bool,
    /// Only operations that were created, and have ended, before this time. Default: `None`.
    pub ended_before: Option<Timestamp>,
    /// Only operations after this one in the order of the listing. Default: `None`.
    pub after: Option<OperationKey>,
    /// The maximum number of operations to return.
    pub limit: usize,
}

impl OperationFilter {
    /// Creates a filter that returns the newest operations, at most `limit`.
    pub fn new(limit: usize) -> Self {
        Self {
            unfinished_only: false,
            lease_lapsed_at: None,
            partition: None,
            status: None,
            end_pending_only: false,
            ended_before: None,
            after: None,
            limit,
        }
    }

    /// Returns only operations that have not started or are running, not those that are paused.
    pub fn unfinished_only(mut self) -> Self {
        self.unfinished_only = true;
        self
    }

    /// Returns only operations that no runner holds at `time`.
    pub fn lease_lapsed_at(mut self, time: Timestamp) -> Self {
        self.lease_lapsed_at = Some(time);
        self
    }

    /// Returns only operations of this partition.
    pub fn partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Returns only operations with this status.
    pub fn status(mut self, status: OperationStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Returns only operations whose end is still to be delivered to the observer.
    pub fn end_pending_only(mut self) -> Self {
        self.end_pending_only = true;
        self
    }

    /// Returns only operations that were created, and have ended, before `time`.
    ///
    /// The condition on the creation excludes nothing as long as the clocks of the replicas agree. It lets a store skip all
    /// newer operations with the index that it lists operations by.
    pub fn ended_before(mut self, time: Timestamp) -> Self {
        self.ended_before = Some(time);
        self
    }

    /// Returns only operations after this one, for the next page.
    pub fn after(mut self, key: OperationKey) -> Self {
        self.after = Some(key);
        self
    }

    /// Whether a checkpoint fulfills the conditions, except [`after`](Self::after).
    pub fn matches(&self, checkpoint: &Checkpoint) -> bool {
        (!self.unfinished_only || checkpoint.status.is_running())
            && self.lease_lapsed_at.is_none_or(|time| !checkpoint.is_held(time))
            && self.partition.as_ref().is_none_or(|name| checkpoint.context.partition.as_ref() == Some(name))
            && self.status.is_none_or(|status| checkpoint.status == status)
            && (!self.end_pending_only || checkpoint.end_pending)
            && self.ended_before.is_none_or(|time| {
                checkpoint.status.is_ended()
                    && checkpoint.created_time < time
                    && checkpoint.last_updated_time < time
            })
    }

    /// Whether all operations that the filter can match are unfinished, for stores that index those.
    pub fn is_unfinished_only(&self) -> bool {
        self.unfinished_only || self.status.is_some_and(OperationStatus::is_running)
    }
}
