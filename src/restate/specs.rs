//! The object `ExportSpec`: a piece of an operation's spec. A spec may hold a million identifiers, more than one message
//! to Restate may contain.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use restate_sdk::prelude::*;

use crate::error::{Error, ErrorKind, InvalidJson, Result};
use crate::model::{OperationId, OperationSpec};
use crate::restate::http_client::HttpClient;
use crate::restate::messages::{SPEC_SERVICE, SpecRef};
use crate::restate::operations::ExportOperationClient;

/// The size of a piece in bytes, well below Restate's limit of 32 MiB.
const PIECE_SIZE: usize = 4 << 20;

/// The number of pieces that are sent or fetched concurrently.
const MAX_CONCURRENT_PIECES: usize = 4;

/// After this time, a piece that no operation refers to is deleted: the start that uploaded it did not finish.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(3600);

/// The state key of the piece.
const PIECE_KEY: &str = "piece";

pub(crate) struct ExportSpec;

#[restate_sdk::object(client_visibility = "pub(crate)")]
impl ExportSpec {
    #[handler]
    async fn put(&self, ctx: ObjectContext<'_>, piece: Bytes) -> HandlerResult<()> {
        ctx.set(PIECE_KEY, piece);
        ctx.object_client::<ExportSpecClient<'_>>(ctx.key()).check().send_after(ORPHAN_TIMEOUT);
        Ok(())
    }

    #[handler]
    async fn get(&self, ctx: SharedObjectContext<'_>) -> HandlerResult<Bytes> {
        Ok(ctx.get::<Bytes>(PIECE_KEY).await?.unwrap_or_default())
    }

    /// Deletes the piece if its operation does not refer to it.
    #[handler(ingress_private)]
    async fn check(&self, ctx: ObjectContext<'_>) -> HandlerResult<()> {
        let mut parts = ctx.key().split('.');
        let (operation, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let operation = ctx.object_client::<ExportOperationClient<'_>>(operation);
        if !operation.refers_to(name.to_owned()).call().await? {
            ctx.clear(PIECE_KEY);
        }
        Ok(())
    }

    #[handler(ingress_private)]
    async fn clear(&self, ctx: ObjectContext<'_>) -> HandlerResult<()> {
        ctx.clear(PIECE_KEY);
        Ok(())
    }
}

/// Uploads a spec to Restate.
pub(crate) async fn upload(client: &HttpClient, spec: &OperationSpec) -> Result<SpecRef> {
    let json = serde_json::to_vec(spec).map_err(|cause| {
        Error::new(ErrorKind::Internal, "the operation cannot be serialized").with_source(cause)
    })?;
    let json = Bytes::from(json);
    let pieces = u32::try_from(json.len().div_ceil(PIECE_SIZE))
        .map_err(|_| Error::invalid("/source", "the source has too many identifiers"))?;
    let reference = SpecRef { name: OperationId::random(), pieces };
    stream::iter(reference.keys(spec.id).enumerate())
        .map(|(index, key)| {
            let piece = json.slice(index * PIECE_SIZE..json.len().min((index + 1) * PIECE_SIZE));
            async move { client.call_bytes(SPEC_SERVICE, &key, "put", piece).await }
        })
        .buffered(MAX_CONCURRENT_PIECES)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(reference)
}

/// Fetches a spec from Restate.
pub(crate) async fn fetch(client: &HttpClient, id: OperationId, spec: &SpecRef) -> Result<OperationSpec> {
    let json = stream::iter(spec.keys(id))
        .map(|key| async move { client.call_bytes(SPEC_SERVICE, &key, "get", Bytes::new()).await })
        .buffered(MAX_CONCURRENT_PIECES)
        .try_fold(BytesMut::new(), |mut json, piece| async move {
            json.extend_from_slice(&piece);
            Ok(json)
        })
        .await?;
    serde_json::from_slice(&json).map_err(|cause| {
        Error::new(ErrorKind::Internal, "a stored operation cannot be read")
            .with_source(InvalidJson::from(cause))
    })
}
