//! [`IdempotencyKey`]: lets a client repeat `POST /export` without starting a second operation.

use axum::http::header::HeaderName;
use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use uuid::Builder;

use crate::http::problem::Problem;
use crate::model::{OperationContext, OperationId};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The maximum length of a key in bytes.
pub(super) const MAX_KEY_LEN: usize = 255;

/// The key that a client has given a request. The operation's id is derived from it, so that concurrent requests with the
/// same key, to any replica, conflict in the operation store.
pub(super) struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Reads the key of a request, if it has one. Quotes around it are ignored: some clients send a structured string.
    pub(super) fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().unwrap_or_default().trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        match values.next().is_none() && (1..=MAX_KEY_LEN).contains(&text.len()) {
            true => Ok(Some(Self(text.to_owned()))),
            false => Err(Problem::new(StatusCode::BAD_REQUEST).with_detail(format!(
                "'Idempotency-Key' must be one text of 1 to {MAX_KEY_LEN} ASCII characters"
            ))),
        }
    }

    /// The id of the operation that is started with this key. Partitions and callers have keys of their own.
    pub(super) fn operation_id(&self, context: &OperationContext) -> OperationId {
        let mut hash = Sha256::new();
        for scope in [&context.partition, &context.caller] {
            match scope {
                Some(text) => hash.update([&[1], &text.len().to_be_bytes()[..], text.as_bytes()].concat()),
                None => hash.update([0]),
            }
        }
        hash.update(&self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        OperationId::from_u128(Builder::from_custom_bytes(id).into_uuid().as_u128())
    }

    /// A digest of the key and the request's body. The key makes guesses at credentials in the body infeasible for a reader
    /// of the operation store, where the key is not stored.
    pub(super) fn request_digest(&self, body: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0.len().to_be_bytes());
        hash.update(&self.0);
        hash.update(body);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
