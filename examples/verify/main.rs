//! Compares a container or a folder with the manifest of an export, `manifest.jsonl`.
//!
//! `cargo run --release --example verify -- --help`
//!
//! Every difference is one line on stdout. Exit status: 0 no difference, 3 differences, 1 the check could not be
//! completed, 2 invalid arguments, an unusable destination, or no manifest.

mod args;
mod manifest;
mod results;

use std::process::ExitCode;

use crate::args::Args;
use crate::manifest::Manifest;
use crate::results::CheckError;

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
        Err(message) => return exit(UNUSABLE, &message),
    };
    let store = match args.store() {
        Ok(store) => store,
        Err(message) => return exit(UNUSABLE, &message),
    };
    let manifest = match Manifest::read(&*store, args.operation).await {
        Ok(manifest) => manifest,
        Err(message) => return exit(UNUSABLE, &message),
    };
    match results::compare(&*store, args.operation, manifest).await {
        Ok(differences) => {
            eprintln!("{differences}");
            if differences.any() { DIFFERENT.into() } else { ExitCode::SUCCESS }
        }
        Err(CheckError(message)) => exit(FAILED, &message),
    }
}

fn exit(code: u8, message: &str) -> ExitCode {
    eprintln!("error: {message}");
    code.into()
}
