//! [`ByteRates`]: the limits on bytes per second that apply to an operation.

use std::sync::Arc;

use futures::StreamExt;

use crate::content::Content;
use crate::limits::{Limiter, RateLimit};
use crate::pipeline::config::ExportConfig;

/// The limit of the engine and that of the destination account.
#[derive(Clone)]
pub(crate) struct ByteRates {
    engine: Arc<RateLimit>,
    account: Arc<Limiter>,
}

impl ByteRates {
    pub(crate) fn new(config: &ExportConfig, account: &Arc<Limiter>) -> Self {
        Self { engine: Arc::clone(&config.bytes), account: Arc::clone(account) }
    }

    /// Returns the content when it may be sent. The chunks of a stream wait one by one.
    pub(crate) async fn limit(&self, content: Content) -> Content {
        if let Some(bytes) = content.as_bytes() {
            self.acquire(bytes.len()).await;
            return content;
        }
        let (length, rates) = (content.length(), self.clone());
        let chunks = content.into_stream().then(move |chunk| {
            let rates = rates.clone();
            async move {
                if let Ok(chunk) = &chunk {
                    rates.acquire(chunk.len()).await;
                }
                chunk
            }
        });
        Content::from_stream(length, chunks)
    }

    async fn acquire(&self, bytes: usize) {
        self.engine.acquire(bytes).await;
        self.account.bytes().acquire(bytes).await;
    }
}
