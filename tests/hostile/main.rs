//! Hostile input: whatever comes from outside is read without a panic, without work or memory out of proportion to its
//! size, and never leads anywhere else.
//!
//! Each target has a corpus in `tests/hostile/corpus/`, small and made for this; it is run as it is and mutated, always
//! in the same ways. `DICOM_EXPORT_FUZZ_SEED` chooses others, `DICOM_EXPORT_FUZZ_ROUNDS` how many; `DICOM_EXPORT_LONG`
//! runs fifty times as many. `fuzz/README.md` says how to fuzz the same targets with coverage.

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

// How many bytes may be allocated in all, not at a time, so that it also bounds the work that allocates. The fixed
// parts are those of a runtime, a connection, a store's cache.
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
