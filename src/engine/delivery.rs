//! Tells the observer that operations have ended, at least once for each end.
//!
//! The end is saved together with the fact that it is to be delivered. A delivery holds the lease of the ended operation, so
//! that replicas that share the store do not deliver it at the same time.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use crate::engine::runner::Runner;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Lease, OperationId};
use crate::pipeline::{DELIVERY_TIMEOUT, ExportObserver, announce_end, operation_span, record};

/// The number of ends that are delivered at once.
const MAX_CONCURRENT_DELIVERIES: usize = 8;

impl Runner {
    /// Delivers the ends whose delivery has failed or was interrupted, here or in another process.
    pub(super) async fn deliver_ends(&self) {
        // Another call delivers them.
        let Ok(_delivering) = self.delivering.try_lock() else { return };
        match self.operations.undelivered().await {
            Ok(ids) => {
                let deliveries = stream::iter(ids).map(|id| self.deliver_end(id));
                deliveries.buffer_unordered(MAX_CONCURRENT_DELIVERIES).collect::<()>().await;
            }
            Err(error) => {
                let kind = error.kind().as_str();
                tracing::warn!(kind, error = %error.report(), "cannot look for ends to deliver");
            }
        }
    }

    /// Delivers the end of an operation in a task.
    pub(super) fn spawn_delivery(self: &Arc<Self>, id: OperationId) {
        let runner = Arc::clone(self);
        self.registry.tasks.spawn(async move { runner.deliver_end(id).await });
    }

    /// Delivers the end of an operation, if it has ended and that has not been delivered. A shutdown that waits no longer
    /// interrupts it.
    pub(super) async fn deliver_end(&self, id: OperationId) {
        let Some(observer) = self.config.observer.as_deref() else { return };
        let abandon = self.registry.abandon_token();
        let delivered = tokio::select! {
            delivered = self.try_deliver_end(id, observer) => delivered,
            () = abandon.cancelled() => return,
        };
        if let Err(error) = delivered {
            let (span, kind) = (operation_span(id), error.kind().as_str());
            span.in_scope(|| {
                tracing::warn!(kind, error = %error.report(), "the end of the operation is delivered later");
            });
        }
    }

    async fn try_deliver_end(&self, id: OperationId, observer: &dyn ExportObserver) -> Result<()> {
        let retrier = self.config.short_retrier();
        let holder = OperationId::random().to_string();
        let now = retrier.run(|| self.store.now()).await?;
        let claim = retrier.run(|| {
            self.operations.update(id, |checkpoint| {
                let is_held = checkpoint.is_held(now)
                    && checkpoint.lease.as_ref().is_some_and(|lease| lease.holder != holder);
                if is_held || !checkpoint.end_pending {
                    return Err(Error::new(ErrorKind::Conflict, "the end is delivered already"));
                }
                checkpoint.lease = Some(Lease::new(&*holder, now, DELIVERY_TIMEOUT));
                Ok(())
            })
        });
        let checkpoint = match claim.await {
            // Delivered, being delivered, resumed, or deleted.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => return Ok(()),
            claimed => claimed?,
        };
        let delivered = announce_end(observer, &record(id, checkpoint)).await;
        let release = retrier.run(|| {
            self.operations.update(id, |checkpoint| {
                // Unless the operation was resumed meanwhile.
                if checkpoint.lease.as_ref().is_some_and(|lease| lease.holder == holder) {
                    (checkpoint.end_pending, checkpoint.lease) = (delivered.is_err(), None);
                }
                Ok(())
            })
        });
        let released = release.await;
        delivered.and(released.map(|_| ()))
    }
}
