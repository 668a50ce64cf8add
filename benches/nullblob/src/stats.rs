//! Counts of requests and connections.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio_rustls::rustls::ServerConnection;

#[derive(Default)]
pub struct Stats {
    pub puts: AtomicU64,
    pub blocks: AtomicU64,
    pub commits: AtomicU64,
    pub appends: AtomicU64,
    pub copies: AtomicU64,
    pub rejected: AtomicU64,
    pub bytes: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    resumed: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
    /// The TLS version and the cipher suite of the last handshake.
    tls: Mutex<String>,
}

impl Stats {
    pub fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub fn handshake(&self, connection: &ServerConnection) {
        if connection.handshake_kind() == Some(tokio_rustls::rustls::HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Relaxed);
        }
        let version = connection.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let suite = suite.and_then(|suite| suite.as_str()).unwrap_or_default();
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = format!("{version} {suite}");
    }

    /// Counts a request, and returns the number of requests in flight.
    pub fn begin(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed);
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(now, Relaxed);
        now
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// Returns all counts since the last call as a JSON object.
    pub fn take(&self) -> String {
        let counts = [
            ("puts", &self.puts),
            ("blocks", &self.blocks),
            ("commits", &self.commits),
            ("appends", &self.appends),
            ("copies", &self.copies),
            ("rejected", &self.rejected),
            ("bytes", &self.bytes),
            ("requests", &self.requests),
            ("connections", &self.connections),
            ("resumedHandshakes", &self.resumed),
            ("peakInFlight", &self.peak),
        ];
        let counts = counts.map(|(name, count)| format!("\"{name}\":{}", count.swap(0, Relaxed)));
        let tls = std::mem::take(&mut *self.tls.lock().unwrap_or_else(PoisonError::into_inner));
        format!("{{{},\"tls\":\"{tls}\"}}\n", counts.join(","))
    }
}
