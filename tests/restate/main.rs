//! Exports by worker processes on a Restate server, to Azurite.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/proxy.rs"]
mod proxy;

mod archive;
mod cluster;
mod export;
mod http;
mod kills;
mod large;
mod secrets;
mod server;
mod stops;

/// The signature in a container URI with a SAS, encoded and decoded.
fn signatures(uri: &str) -> [String; 2] {
    let url = reqwest::Url::parse(uri).unwrap();
    let (_, decoded) = url.query_pairs().find(|(name, _)| name == "sig").unwrap();
    let (_, signature) = uri.split_once("sig=").unwrap();
    [signature.split('&').next().unwrap().to_owned(), decoded.into_owned()]
}
