//! How long ended operations are remembered.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::inner::Inner;
use crate::error::{ErrorKind, Result};
use crate::model::OperationId;
use crate::model::Timestamp;
use crate::sync::lock;

/// How often ended operations are looked for at most, unless they are remembered for less.
const NOW_AND_THEN: Duration = Duration::from_secs(3600);

impl Inner {
    /// Forgets operations whose time is over, if that was not done lately.
    pub(super) async fn forget_now_and_then(&self) {
        {
            let mut swept = lock(&self.swept);
            let every = NOW_AND_THEN.min(self.options.retention);
            if swept.is_some_and(|last| last.elapsed() < every) {
                return;
            }
            *swept = Some(Instant::now());
        }
        if let Err(error) = self.purge_expired().await {
            tracing::warn!(kind = error.kind().as_str(), "ended operations could not be forgotten");
        }
    }

    pub(super) async fn purge_expired(&self) -> Result<usize> {
        let now = Timestamp::now().to_utc();
        let mut forgotten = 0;
        for id in self.every_operation().await? {
            let checkpoint = match self.store.load(id).await {
                // Deleted since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                loaded => loaded?,
            };
            let age = (now - checkpoint.last_updated_time.to_utc()).to_std().unwrap_or_default();
            if checkpoint.status.is_ended() && age > self.options.retention {
                // Its secret went with its end, unless the process died in between.
                self.secrets.delete(id).await?;
                self.store.delete(id).await?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    /// Every stored operation, newest first.
    pub(super) async fn every_operation(&self) -> Result<Vec<OperationId>> {
        const PAGE: usize = 100;
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.list(after, PAGE).await?;
            all.extend(page.iter().map(|key| key.id));
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(*last),
                _ => return Ok(all),
            }
        }
    }
}
