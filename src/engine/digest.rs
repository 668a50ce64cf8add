//! [`Digest`]: the SHA-256 of a content, computed while it is read.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use sha2::{Digest as _, Sha256};

use crate::content::Content;
use crate::sync::lock;

/// Of everything that has been read so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest(Arc<Mutex<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    sha256: Sha256,
    length: u64,
}

impl Digest {
    /// The same content, and its digest.
    pub(crate) fn of(content: Content) -> (Content, Self) {
        let digest = Self::default();
        if let Some(bytes) = content.as_bytes() {
            digest.add(bytes);
            return (content, digest);
        }
        let (length, passing) = (content.length(), digest.clone());
        let chunks = content.into_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                passing.add(chunk);
            }
        });
        (Content::from_stream(length, chunks), digest)
    }

    /// How many bytes have been read, and their SHA-256 in lower-case hexadecimal digits.
    pub(crate) fn read(&self) -> (u64, String) {
        let State { sha256, length } = self.lock().clone();
        (length, sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn add(&self, chunk: &[u8]) {
        let mut state = self.lock();
        state.sha256.update(chunk);
        state.length += chunk.len() as u64;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}
