//! Requests to operations that may be running, here or in another process: cancel, pause, limit.

use std::sync::Arc;

use crate::engine::runner::Runner;
use crate::error::Result;
use crate::model::OperationId;
use crate::pipeline::announce_pause;

impl Runner {
    pub(super) async fn cancel(self: &Arc<Self>, id: OperationId) -> Result<()> {
        if self.operations.request_cancel(id).await? {
            self.release_resources(id).await;
            self.spawn_delivery(id);
        }
        if let Some(run) = self.registry.requests(id) {
            run.cancel.cancel();
        }
        Ok(())
    }

    pub(super) async fn pause(&self, id: OperationId) -> Result<()> {
        if let Some(record) = self.operations.request_pause(id).await? {
            announce_pause(self.config.observer.as_deref(), &record).await;
        }
        if let Some(run) = self.registry.requests(id) {
            run.pause.cancel();
        }
        Ok(())
    }

    pub(super) async fn set_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
        self.operations.set_bytes_per_second(id, bytes).await?;
        if let Some(run) = self.registry.requests(id) {
            run.bytes.set(bytes);
        }
        Ok(())
    }
}
