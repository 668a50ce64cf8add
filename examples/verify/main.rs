//! Checks a container or a folder against the receipt of an export: `manifest.jsonl`.
//!
//! `cargo run --release --example verify -- --help`
//!
//! Every difference is one line on stdout. Exit status: 0 all is as the receipt says, 3 there are differences, 1 it could
//! not be checked to the end, 2 bad arguments, an unusable destination, or no receipt.

mod args;
mod receipt;
mod results;

use std::process::ExitCode;

use crate::args::Args;
use crate::receipt::Receipt;
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
    let receipt = match Receipt::read(&*store, args.operation).await {
        Ok(receipt) => receipt,
        Err(fault) => return ended(UNUSABLE, &fault),
    };
    match results::compare(&*store, args.operation, receipt).await {
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
