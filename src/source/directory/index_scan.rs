//! [`IndexScan`]: brings an index up to date with all files of a tree.

use std::sync::Arc;

use super::index::Index;
use super::report::DirectoryReport;
use super::scan::Scan;
use super::tree::Tree;
use crate::error::Result;
use crate::sync::blocking;

pub(super) struct IndexScan {
    index: Arc<Index>,
    scan: Scan,
    report: DirectoryReport,
}

impl IndexScan {
    /// Creates a scan for an index; without one, for a temporary index.
    pub(super) async fn new(tree: &Tree, index: Option<Arc<Index>>) -> Result<Self> {
        let index = match index {
            Some(index) => index,
            None => {
                let tree = tree.clone();
                blocking(move || Index::temporary(&tree)).await?
            }
        };
        let scan = Scan::new(tree).with_index(Arc::clone(&index), true);
        Ok(Self { index, scan, report: DirectoryReport::default() })
    }

    /// Reads all files. After an error, call it again unless the scan is lost.
    pub(super) async fn run(&mut self) -> Result<()> {
        while let Some(entry) = self.scan.next().await? {
            self.report.add(&entry);
        }
        Ok(())
    }

    /// Whether the scan can only be restarted.
    pub(super) fn is_lost(&self) -> bool {
        self.scan.is_lost()
    }

    /// Returns the index and what the scan left out.
    pub(super) fn finish(self) -> (Arc<Index>, DirectoryReport) {
        (self.index, self.report)
    }
}
