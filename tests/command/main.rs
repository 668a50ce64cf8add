//! The examples `export` and `verify` as processes: what they write and print, their exit status, and exports that are
//! killed and resumed.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/real_archive.rs"]
mod archive;
#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/canary.rs"]
mod canary;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;

mod durability;
mod privacy;
mod real_files;
mod refusals;
mod stops;
mod verify;

/// The signature in a container URI or a connection string with a SAS, encoded and decoded.
fn signatures(text: &str) -> [String; 2] {
    let (_, signature) = text.split_once("sig=").unwrap();
    let signature = signature.split('&').next().unwrap();
    let decoded = reqwest::Url::parse(&format!("http://host?sig={signature}")).unwrap();
    let decoded = decoded.query_pairs().next().unwrap().1.into_owned();
    [signature.to_owned(), decoded]
}
