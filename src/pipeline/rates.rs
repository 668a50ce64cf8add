//! [`ByteRates`]: the limits on bytes per second that apply to an operation.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use crate::content::Content;
use crate::limits::{Limiter, RateLimit};
use crate::pipeline::config::ExportConfig;

/// The limits of the operation, of the engine, and of the destination account.
#[derive(Clone)]
pub(crate) struct ByteRates {
    operation: Arc<RateLimit>,
    engine: Arc<RateLimit>,
    account: Arc<Limiter>,
}

impl ByteRates {
    pub(crate) fn new(operation: Arc<RateLimit>, config: &ExportConfig, account: &Arc<Limiter>) -> Self {
        Self { operation, engine: Arc::clone(&config.bytes), account: Arc::clone(account) }
    }

    /// Returns the content when it may be sent. The chunks of a stream wait one by one.
    pub(crate) async fn limit(&self, content: Content) -> Content {
        if let Some(bytes) = content.as_bytes() {
            self.acquire(bytes.len()).await;
            return content;
        }
        let length = content.length();
        let limited =
            stream::unfold((content.into_stream(), self.clone()), |(mut chunks, rates)| async move {
                let chunk = chunks.next().await?;
                if let Ok(chunk) = &chunk {
                    rates.acquire(chunk.len()).await;
                }
                Some((chunk, (chunks, rates)))
            });
        Content::from_stream(length, limited)
    }

    async fn acquire(&self, bytes: usize) {
        self.operation.acquire(bytes).await;
        self.engine.acquire(bytes).await;
        self.account.bytes().acquire(bytes).await;
    }
}
