//! Operations' specs, in pieces: one may hold a million identifiers, and no message of Restate's takes those.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt, TryStreamExt};
use restate_sdk::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationId, OperationSpec};
use crate::restate::ingress::Door;
use crate::restate::operations::ExportOperationClient;
use crate::restate::wire::SpecRef;

/// Far below Restate's 32 MiB.
const PIECE: usize = 4 << 20;

/// Pieces on their way at once.
const AT_ONCE: usize = 4;

/// After so long, a piece that no operation refers to is dropped: whoever brought it did not come back.
const ORPHANED: Duration = Duration::from_secs(3600);

const SERVICE: &str = "ExportSpec";

/// A piece of a spec.
pub(crate) struct ExportSpec;

#[restate_sdk::object(client_visibility = "pub(crate)")]
impl ExportSpec {
    #[handler]
    async fn put(&self, ctx: ObjectContext<'_>, piece: Bytes) -> HandlerResult<()> {
        ctx.set("piece", piece);
        ctx.object_client::<ExportSpecClient<'_>>(ctx.key()).check().send_after(ORPHANED);
        Ok(())
    }

    #[handler]
    async fn get(&self, ctx: SharedObjectContext<'_>) -> HandlerResult<Bytes> {
        Ok(ctx.get::<Bytes>("piece").await?.unwrap_or_default())
    }

    #[handler(ingress_private)]
    async fn check(&self, ctx: ObjectContext<'_>) -> HandlerResult<()> {
        let mut parts = ctx.key().split('.');
        let (operation, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let operation = ctx.object_client::<ExportOperationClient<'_>>(operation);
        if !operation.refers_to(name.to_owned()).call().await? {
            ctx.clear("piece");
        }
        Ok(())
    }

    #[handler(ingress_private)]
    async fn clear(&self, ctx: ObjectContext<'_>) -> HandlerResult<()> {
        ctx.clear("piece");
        Ok(())
    }
}

/// The pieces' keys.
pub(crate) fn keys(id: OperationId, spec: &SpecRef) -> impl Iterator<Item = String> + use<> {
    let name = spec.name;
    (0..spec.pieces).map(move |piece| format!("{id}.{name}.{piece}"))
}

/// Brings a spec to Restate.
pub(crate) async fn upload(door: &Door, spec: &OperationSpec) -> Result<SpecRef> {
    let text = serde_json::to_vec(spec).map_err(|cause| {
        Error::new(ErrorKind::Internal, "an operation cannot be written").with_source(cause)
    })?;
    let text = Bytes::from(text);
    let pieces = u32::try_from(text.len().div_ceil(PIECE))
        .map_err(|_| Error::invalid("/source", "the source names too many identifiers"))?;
    let reference = SpecRef { name: OperationId::random(), pieces };
    stream::iter(keys(spec.id, &reference).enumerate())
        .map(|(at, key)| {
            let piece = text.slice(at * PIECE..text.len().min((at + 1) * PIECE));
            async move { door.bytes(SERVICE, &key, "put", piece).await }
        })
        .buffered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(reference)
}

/// Fetches a spec from Restate.
pub(crate) async fn fetch(door: &Door, id: OperationId, spec: &SpecRef) -> Result<OperationSpec> {
    let text = stream::iter(keys(id, spec))
        .map(|key| async move { door.bytes(SERVICE, &key, "get", Bytes::new()).await })
        .buffered(AT_ONCE)
        .try_fold(BytesMut::new(), |mut text, piece| async move {
            text.extend_from_slice(&piece);
            Ok(text)
        })
        .await?;
    serde_json::from_slice(&text).map_err(|cause| {
        Error::new(ErrorKind::Internal, "a stored operation cannot be read").with_source(cause)
    })
}
