//! Checks a container or a folder against the manifest of an export: `manifest.jsonl`.
//!
//! `cargo run --release --example verify -- --help`
//!
//! Every difference is one line on stdout. Exit status: 0 all is as the manifest says, 3 there are differences, 1 it could
//! not be checked to the end, 2 bad arguments, an unusable destination, or no manifest.

mod args;
mod manifest;
mod results;

use std::process::ExitCode;

use crate::args::Args;
use crate::manifest::Manifest;
use crate::results::Trouble;

const FAILED: u8 = 1;
const UNUSABLE: u8 = 2;
const DIFFERENT: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(fault) => return ended(UNUSABLE, &fault),
    };
    let store = match args.store() {
        Ok(store) => store,
        Err(fault) => return ended(UNUSABLE, &fault),
    };
    let manifest = match Manifest::read(&*store, args.operation).await {
        Ok(manifest) => manifest,
        Err(fault) => return ended(UNUSABLE, &fault),
    };
    match results::compare(&*store, args.operation, manifest).await {
        Ok(differences) => {
            eprintln!("{differences}");
            if differences.any() { DIFFERENT.into() } else { ExitCode::SUCCESS }
        }
        Err(Trouble(fault)) => ended(FAILED, &fault),
    }
}

fn ended(code: u8, fault: &str) -> ExitCode {
    eprintln!("error: {fault}");
    code.into()
}
