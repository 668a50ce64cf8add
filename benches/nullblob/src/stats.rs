//! What was asked of the server.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub struct Stats {
    pub puts: AtomicU64,
    pub blocks: AtomicU64,
    pub commits: AtomicU64,
    pub appends: AtomicU64,
    pub copies: AtomicU64,
    pub refused: AtomicU64,
    pub bytes: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
}

impl Stats {
    /// One more request; gives how many there are now.
    pub fn begin(&self) -> u64 {
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(now, Relaxed);
        now
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// All counts since the last call, as one JSON object.
    pub fn take(&self) -> String {
        let counts = [
            ("puts", &self.puts),
            ("blocks", &self.blocks),
            ("commits", &self.commits),
            ("appends", &self.appends),
            ("copies", &self.copies),
            ("refused", &self.refused),
            ("bytes", &self.bytes),
            ("peakInFlight", &self.peak),
        ];
        let counts = counts.map(|(name, count)| format!("\"{name}\":{}", count.swap(0, Relaxed)));
        format!("{{{}}}\n", counts.join(","))
    }
}
