//! `DicomWebSource` against conforming, unusual and faulty servers.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod broken;
mod credentials;
mod listing;
mod paging;
mod proxies;
mod read_ahead;
mod retrieving;
mod server;

use std::sync::Arc;

use bytes::Bytes;
use dicom_export::source::Instance;
use dicom_export::testing::fixtures;
use dicom_export::{DicomWebSource, InstanceSource, Result};
use futures::TryStreamExt;

use crate::server::{Archive, Quirks, Reply, Request, Server, dicomweb};

/// Three studies of two series of four slices.
fn archive() -> Arc<Archive> {
    let mut archive = Archive::new();
    for (study, series) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)] {
        for instance in 1..=4 {
            let slice = fixtures::ct_slice(study, series, instance);
            archive.insert(fixtures::instance(study, series, instance), slice);
        }
    }
    Arc::new(archive)
}

/// A server with this archive, except where `override_with` returns a response.
async fn server(
    archive: &Arc<Archive>,
    quirks: Quirks,
    override_with: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let archive = Arc::clone(archive);
    Server::start(move |request| {
        override_with(request).unwrap_or_else(|| dicomweb(&archive, quirks, request))
    })
    .await
}

fn source(server: &Server) -> DicomWebSource {
    DicomWebSource::builder(server.root()).page_size(5).build().unwrap()
}

async fn read(source: &DicomWebSource, instance: &Instance) -> Result<Bytes> {
    let chunks: Vec<Bytes> = source.open(instance).await?.into_stream().try_collect().await?;
    Ok(chunks.concat().into())
}
