//! Hostile input: it is read without panics, with work and memory in proportion to its size, and leads to no other path
//! or host.
//!
//! Each target has a small corpus in `tests/hostile/corpus/`, which runs unchanged and in deterministic mutations.
//! `DICOM_EXPORT_FUZZ_SEED` sets the first seed, `DICOM_EXPORT_FUZZ_ROUNDS` the number of mutations, and
//! `DICOM_EXPORT_LONG` runs fifty times as many. `fuzz/README.md` describes fuzzing the same targets with coverage.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod paths;
mod proportion;
mod runner;
mod targets;

use runner::Target;

macro_rules! targets {
    ($($name:ident: $rounds:literal rounds, $per_byte:literal * size + $fixed:expr;)*) => {$(
        #[test]
        fn $name() {
            runner::run(&Target {
                name: stringify!($name),
                work: targets::$name::run,
                rounds: $rounds,
                per_byte: $per_byte,
                fixed: $fixed,
            });
        }
    )*};
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// The limit applies to the sum of all allocations, so it also bounds the work that allocates. The fixed part is for a
// runtime, a connection, or a store's cache.
targets! {
    request: 4000 rounds, 256 * size + 64 * KIB;
    connection_string: 4000 rounds, 64 * size + 64 * KIB;
    container_uri: 4000 rounds, 512 * size + 64 * KIB;
    identifier: 4000 rounds, 64 * size + 16 * KIB;
    stored: 4000 rounds, 128 * size + 64 * KIB;
    http: 2000 rounds, 256 * size + 256 * KIB;
    dicom_head: 400 rounds, 64 * size + 512 * KIB;
    multipart: 400 rounds, 64 * size + 4 * MIB;
    qido: 400 rounds, 512 * size + 4 * MIB;
    state_file: 150 rounds, 512 * size + 64 * MIB;
}
