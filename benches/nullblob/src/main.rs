//! A loopback server that responds to the calls of an upload to Azure Blob Storage or Amazon S3, reads every body and stores
//! nothing, so that only the cost of the client is measured.
//!
//! `nullblob [ADDRESS] [--s3] [--tls FOLDER]` (default `127.0.0.1:11000`; port 0 selects a free port) prints its address and
//! serves until it is killed. With `--s3` the calls are those of S3, with the bucket in the path. With `--tls` it creates a
//! certificate authority, writes its certificate to `FOLDER/ca.pem`, and serves https. It has two additional calls:
//! - `GET /stats`: the requests since the last call, as a JSON object.
//! - `GET /limits?busy=N&latency=MS&slots=N&rate=R&crc64=1&md5=1`: which requests are rejected, how slow responses are, and
//!   which checksums they contain; see [`limits::Limits`].
//!
//! `nullblob wan LISTEN UPSTREAM [delay=MS] [rate=MBITS] [connection-rate=MBITS]` is a proxy that emulates a wide-area
//! network in front of a server; see [`wan`].
#![forbid(unsafe_code)]

mod azure;
mod checksums;
mod limits;
mod s3;
mod server;
mod stats;
mod tls;
mod wan;

use std::io::Result;
use std::path::Path;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::{Server, Store};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["wan", listen, upstream, ref settings @ ..] = arguments[..] {
        return wan::run(listen, upstream, settings).await;
    }
    let store = match arguments.iter().position(|argument| *argument == "--s3") {
        Some(at) => {
            arguments.remove(at);
            Store::S3
        }
        None => Store::Azure,
    };
    match arguments[..] {
        [] => serve("127.0.0.1:11000", store, None).await,
        [address] => serve(address, store, None).await,
        [address, "--tls", folder] => serve(address, store, Some(tls::acceptor(Path::new(folder))?)).await,
        _ => Err(std::io::Error::other("usage: nullblob [ADDRESS] [--s3] [--tls FOLDER]")),
    }
}

async fn serve(address: &str, store: Store, tls: Option<TlsAcceptor>) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let server = Arc::new(Server::new(store));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (server, tls) = (Arc::clone(&server), tls.clone());
        tokio::spawn(async move {
            server.stats.connected();
            let _ = stream.set_nodelay(true);
            match tls {
                None => serve_connection(server, stream).await,
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    server.stats.handshake(stream.get_ref().1);
                    serve_connection(server, stream).await;
                }
            }
        });
    }
}

async fn serve_connection(server: Arc<Server>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { server.respond(request).await }
    });
    // Errors are ignored: clients close connections.
    let _ = http1::Builder::new().max_buf_size(1 << 20).serve_connection(TokioIo::new(stream), service).await;
}
