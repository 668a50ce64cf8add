//! Runs a target on its corpus and on mutations of it, and measures allocations.

use std::alloc::System;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations are measured for the whole process, so tests run one at a time.
static EXCLUSIVE: Mutex<()> = Mutex::new(());

/// Keeps other tests from running while the guard is held.
pub(crate) fn exclusive() -> MutexGuard<'static, ()> {
    EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future to its end while no other test runs.
pub(crate) fn run_exclusive(work: impl Future<Output = ()>) {
    let _exclusive = exclusive();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work);
}

pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) work: fn(&[u8]),
    /// The number of mutations.
    pub(crate) rounds: u64,
    /// How many bytes may be allocated for each byte of input,
    pub(crate) per_byte: usize,
    /// and in addition.
    pub(crate) fixed: usize,
}

/// The allocations of some work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) allocations: usize,
    pub(crate) bytes: usize,
}

/// Does work, and returns what all threads have allocated in the meantime.
pub(crate) fn measure<T>(work: impl FnOnce() -> T) -> (T, Cost) {
    let region = Region::new(ALLOCATOR);
    let value = work();
    let change = region.change();
    let grown = usize::try_from(change.bytes_reallocated).unwrap_or(0);
    let allocations = change.allocations + change.reallocations;
    (value, Cost { allocations, bytes: change.bytes_allocated + grown })
}

/// Runs the corpus and mutations of it.
///
/// # Panics
/// If the target panics or allocates too much. The input is kept in the system's folder for temporary files.
pub(crate) fn run(target: &Target) {
    let _exclusive = exclusive();
    let corpus = corpus(target.name);
    assert!(corpus.len() > 3, "tests/hostile/corpus/{} is too small", target.name);
    // The first run also initializes statics.
    (target.work)(&corpus.values().next().unwrap()[..]);
    for (path, input) in &corpus {
        check(target, input, &path.display().to_string());
    }
    let inputs: Vec<_> = corpus.into_values().collect();
    let first = number("DICOM_EXPORT_FUZZ_SEED").unwrap_or(0);
    let long = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { 50 } else { 1 };
    let rounds = number("DICOM_EXPORT_FUZZ_ROUNDS").unwrap_or(target.rounds * long);
    for seed in first..first + rounds {
        let input = mutate(&inputs, seed);
        check(target, &input, &format!("DICOM_EXPORT_FUZZ_SEED={seed} DICOM_EXPORT_FUZZ_ROUNDS=1"));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn corpus(name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("no {}", folder.display()));
    files.map(|file| file.unwrap().path()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn check(target: &Target, input: &[u8], which: &str) {
    let (outcome, cost) = measure(|| catch_unwind(AssertUnwindSafe(|| (target.work)(input))));
    let limit = target.per_byte * input.len() + target.fixed;
    if outcome.is_ok() && cost.bytes <= limit {
        return;
    }
    let kept = std::env::temp_dir().join(format!("dicom-export-{}-failing-input", target.name));
    std::fs::write(&kept, input).unwrap();
    let size = input.len();
    eprintln!("{}: {which}, {size} bytes, kept as {}", target.name, kept.display());
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(()) => panic!("{} bytes were allocated for an input of {size}; the limit is {limit}", cost.bytes),
    }
}

/// Delimiters and extreme values of many formats.
const TOKENS: &[&[u8]] = &[
    b"",
    b"\0",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"\"",
    b"\\",
    b"/",
    b"..",
    b"../",
    b"%2e%2e%2f",
    b"%00",
    b"%",
    b";",
    b"=",
    b"?",
    b"&",
    b"#",
    b"@",
    b":",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b"null",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"\xff\xff\xff\xff",
    b"\xfe\xff",
    b"\xfe\xff\x00\xe0",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xae",
    b"\xc3\x28",
    b"\x7f",
    b" ",
    b"\t",
];

/// One of the inputs with a few changes, deterministic for each seed.
fn mutate(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    /// Long enough to reveal quadratic work.
    const MAX_LEN: usize = 256 << 10;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut input = inputs[random.usize(..inputs.len())].clone();
    for _ in 0..random.usize(1..=4) {
        let (at, to) = (random.usize(..=input.len()), random.usize(..=input.len()));
        let (from, to) = (at.min(to), at.max(to));
        match random.u8(..10) {
            0 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] ^= 1 << random.u8(..8);
            }
            1 if !input.is_empty() => {
                let at = at.min(input.len() - 1);
                input[at] = random.u8(..);
            }
            2 => _ = input.drain(from..to),
            3 => input.truncate(at),
            4 => {
                let token = TOKENS[random.usize(..TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
            5 => {
                let token = TOKENS[random.usize(..TOKENS.len())];
                input.splice(from..to.min(from + token.len()), token.iter().copied());
            }
            // Repeats a piece.
            6 => {
                let piece = input[from..to.min(from + 64)].to_vec();
                let times = (1 << random.u8(..14)).min(MAX_LEN / piece.len().max(1));
                input.splice(to..to, piece.repeat(times));
            }
            // Inserts a piece of another input.
            7 => {
                let other = &inputs[random.usize(..inputs.len())];
                let (a, b) = (random.usize(..=other.len()), random.usize(..=other.len()));
                input.splice(from..to, other[a.min(b)..a.max(b)].iter().copied());
            }
            8 => {
                let bytes: Vec<u8> = (0..random.usize(1..16)).map(|_| random.u8(..)).collect();
                input.splice(at..at, bytes);
            }
            _ => {
                let piece = input[from..to].to_vec();
                input.splice(at..at, piece);
            }
        }
        input.truncate(MAX_LEN);
    }
    input
}
