//! The page on the guarantees names just the tests that carry a guarantee's number, each under its numbers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A guarantee's number, and a test of it.
type Held = (u32, String);

/// As the page has them: a heading with a number, and a table of tests.
fn listed() -> BTreeSet<Held> {
    let mut listed = BTreeSet::new();
    let mut number = None;
    for line in include_str!("../docs/guarantees.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            number = Some(heading.split_once('.').unwrap().0.parse().unwrap());
        } else if let Some(test) = line.strip_prefix("| `") {
            let test = test.strip_suffix("` |").unwrap_or_else(|| panic!("{line}"));
            assert!(listed.insert((number.unwrap(), test.to_owned())), "{test} stands there twice");
        }
    }
    listed
}

/// As the sources have them: every function of a test binary that is called so.
fn written() -> BTreeSet<Held> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut written = BTreeSet::new();
    for entry in std::fs::read_dir(&tests).unwrap() {
        let path = entry.unwrap().path();
        let binary = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "rs") {
            written.extend(of_file(&path, binary));
        } else if path.join("main.rs").exists() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let file = entry.unwrap().path();
                let module = file.file_stem().unwrap().to_str().unwrap();
                if file.is_file() {
                    let name =
                        if module == "main" { binary.to_owned() } else { format!("{binary}::{module}") };
                    written.extend(of_file(&file, &name));
                }
            }
        }
    }
    written
}

fn of_file(file: &PathBuf, module: &str) -> BTreeSet<Held> {
    let text = std::fs::read_to_string(file).unwrap();
    let functions = text.lines().filter_map(|line| {
        let line = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("async ");
        let name = line.strip_prefix("fn ")?.split(['(', '<']).next()?;
        (name.starts_with("guarantee_") || name.starts_with("guarantees_")).then(|| name.to_owned())
    });
    functions
        .flat_map(|name| numbers(&name).into_iter().map(move |at| (at, format!("{module}::{name}"))))
        .collect()
}

/// The numbers in `guarantee_1_and_2_…` and `guarantees_1_to_5_and_8_…`.
fn numbers(name: &str) -> BTreeSet<u32> {
    let (mut numbers, mut range) = (BTreeSet::new(), None);
    for word in name.split('_').skip(1) {
        match (word, word.parse::<u32>()) {
            ("to", _) => range = numbers.last().copied(),
            (_, Ok(number)) => numbers.extend(range.take().unwrap_or(number)..=number),
            ("and", _) => {}
            _ => break,
        }
    }
    numbers
}

#[test]
fn every_guarantee_is_held_by_the_tests_that_the_page_names() {
    let (listed, written) = (listed(), written());
    let missing: Vec<_> = listed.difference(&written).collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that are not there: {missing:#?}");
    let left_out: Vec<_> = written.difference(&listed).collect();
    assert!(left_out.is_empty(), "docs/guarantees.md leaves tests out: {left_out:#?}");
    let held: BTreeSet<u32> = listed.into_iter().map(|(number, _)| number).collect();
    assert_eq!(held, (1..=8).collect());
}
