//! A loopback server that answers the Azure Blob calls an upload makes, reads every body and keeps nothing: it shows
//! what a client costs, not what a store costs.
//!
//! `nullblob [ADDRESS]` (default `127.0.0.1:11000`; port 0 takes a free one) prints its address and serves until
//! killed. Besides the blob calls it answers two of its own:
//! - `GET /stats`: what was asked of it, as one JSON object; cleared by that.
//! - `GET /limits?busy=N&latency=MS&slots=N&rate=R&crc64=1&md5=1`: what it refuses, how slow it is, and which checksums
//!   it answers; see [`limits::Limits`].
#![forbid(unsafe_code)]

mod blobs;
mod checksums;
mod limits;
mod stats;

use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::blobs::Server;

#[tokio::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:11000".into());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let server = Arc::new(Server::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let answer = service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { server.answer(request).await }
            });
            // A client that goes away is no trouble of this server's.
            let _ = http1::Builder::new()
                .max_buf_size(1 << 20)
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
