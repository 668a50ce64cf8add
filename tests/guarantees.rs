//! docs/guarantees.md lists exactly the tests whose names carry the number of a guarantee, under these numbers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The number of a guarantee, and the path of a test of it.
type GuaranteeTest = (u32, String);

/// The tests on the page: a heading with a number, and a table of tests for each guarantee.
fn listed_tests() -> BTreeSet<GuaranteeTest> {
    let mut tests = BTreeSet::new();
    let mut number = None;
    for line in include_str!("../docs/guarantees.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            number = Some(heading.split_once('.').unwrap().0.parse().unwrap());
        } else if let Some(test) = line.strip_prefix("| `") {
            let test = test.strip_suffix("` |").unwrap_or_else(|| panic!("{line}"));
            assert!(tests.insert((number.unwrap(), test.to_owned())), "{test} is listed twice");
        }
    }
    tests
}

/// The tests in the sources: all functions of the test binaries with such a name.
fn implemented_tests() -> BTreeSet<GuaranteeTest> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut tests = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let binary = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_some_and(|extension| extension == "rs") {
            tests.extend(tests_in_file(&path, binary));
        } else if path.join("main.rs").exists() {
            for entry in std::fs::read_dir(&path).unwrap() {
                let file = entry.unwrap().path();
                let module = file.file_stem().unwrap().to_str().unwrap();
                if file.is_file() {
                    let name =
                        if module == "main" { binary.to_owned() } else { format!("{binary}::{module}") };
                    tests.extend(tests_in_file(&file, &name));
                }
            }
        }
    }
    tests
}

fn tests_in_file(file: &PathBuf, module: &str) -> BTreeSet<GuaranteeTest> {
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
fn the_page_lists_all_tests_of_the_guarantees() {
    let (listed, implemented) = (listed_tests(), implemented_tests());
    let missing: Vec<_> = listed.difference(&implemented).collect();
    assert!(missing.is_empty(), "docs/guarantees.md lists tests that do not exist: {missing:#?}");
    let unlisted: Vec<_> = implemented.difference(&listed).collect();
    assert!(unlisted.is_empty(), "docs/guarantees.md does not list these tests: {unlisted:#?}");
    let guarantees: BTreeSet<u32> = listed.into_iter().map(|(number, _)| number).collect();
    assert_eq!(guarantees, (1..=9).collect());
}
