//! Pages that the server fails to list: they are requested again, then divided until the rows that fail are found.

use std::time::Duration;

use tokio::time::sleep;

use super::{PagedList, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::source::dicomweb::list_key;
use crate::source::dicomweb::queries::Queries;
use crate::source::dicomweb::query::Counts;

/// The pauses between the attempts to list something that fails while the server works for others.
const RETRY_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(1500),
    Duration::from_secs(4),
];

/// The number of consecutive rows that fail after which the rest of the list is given up.
const MAX_BROKEN_ROWS: u32 = 16;

impl PagedList {
    pub(super) async fn handle_failure(
        &mut self,
        queries: &Queries,
        error: Error,
        request: &Request,
        wait: bool,
    ) -> Result<()> {
        // These concern the server as a whole, or a study or series that does not exist.
        let is_general = |error: &Error| {
            matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Unauthorized | ErrorKind::NotFound)
        };
        if is_general(&error) {
            return Err(error);
        }
        if self.enlarged_limit.take().is_some() {
            // The server may limit the limit.
            return Ok(());
        }
        if self.divided_limit.is_some() {
            self.divide(request);
            return Ok(());
        }
        if !wait || !queries.works_for_others(&self.query.resource).await {
            return Err(error);
        }
        let mut error = error;
        for pause in RETRY_PAUSES {
            sleep(pause).await;
            match queries.page(&self.query, request.offset, request.limit).await {
                Ok(page) => {
                    self.add(page, request);
                    return Ok(());
                }
                Err(last) if is_general(&last) => return Err(last),
                Err(last) => error = last,
            }
        }
        if !queries.works_for_others(&self.query.resource).await {
            return Err(error);
        }
        if self.query.uid.is_some() || request.is_past_end {
            self.fail_rest();
        } else {
            self.divide(request);
        }
        Ok(())
    }

    /// Requests fewer rows after a failure, or skips the row that fails.
    fn divide(&mut self, request: &Request) {
        if request.limit > 1 {
            self.divided_limit = Some(request.limit / 2);
            return;
        }
        self.pass.last_key = None;
        self.pass.offset = request.offset + 1;
        self.has_broken_rows = true;
        self.rows.insert(&list_key::broken_row(request.offset), Counts::default());
        self.consecutive_broken_rows += 1;
        let remaining = self.stated_count.map(|count| (count as usize).saturating_sub(self.pass.offset));
        if remaining == Some(0) {
            self.finish();
        } else if self.consecutive_broken_rows >= MAX_BROKEN_ROWS {
            self.fail_rest();
        }
    }

    fn fail_rest(&mut self) {
        let first = self.pass.offset - self.consecutive_broken_rows as usize;
        for offset in first..self.pass.offset {
            self.rows.remove(&list_key::broken_row(offset));
        }
        self.has_broken_rows = true;
        self.rows.insert(list_key::FAILED, Counts::default());
        self.is_done = true;
    }
}
