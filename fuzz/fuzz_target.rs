//! Runs the target of `tests/hostile` that this binary is named after, with libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tests/hostile/targets/mod.rs"]
mod targets;

fuzz_target!(|input: &[u8]| {
    let run = match env!("CARGO_BIN_NAME") {
        "request" => targets::request::run,
        "connection_string" => targets::connection_string::run,
        "container_uri" => targets::container_uri::run,
        "identifier" => targets::identifier::run,
        "stored" => targets::stored::run,
        "http" => targets::http::run,
        "dicom_head" => targets::dicom_head::run,
        "multipart" => targets::multipart::run,
        "qido" => targets::qido::run,
        "state_file" => targets::state_file::run,
        name => panic!("unknown target {name}"),
    };
    run(input);
});
