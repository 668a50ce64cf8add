//! Lists that change or are reordered while they are read.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dicom_export::DicomWebSource;
use dicom_export::source::Page;
use serde_json::{Value, json};

use crate::listing::everything;
use crate::server::{Reply, Request, Server};

const STUDIES: usize = 250;

/// The path of a study, series or instance, or of a list in it.
pub(crate) fn below(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

pub(crate) fn uid(tag: &str, uid: &str) -> (String, Value) {
    (tag.to_owned(), json!({ "vr": "UI", "Value": [uid] }))
}

fn count(tag: &str, count: usize) -> (String, Value) {
    (tag.to_owned(), json!({ "vr": "IS", "Value": [count] }))
}

fn study(number: usize) -> String {
    format!("1.2.{number}")
}

fn row(number: usize) -> Value {
    [uid("0020000D", &study(number)), count("00201206", 1), count("00201208", 1)].into_iter().collect()
}

/// A server with one instance in each study. `pages` returns the pages of the list of studies, by the number of the request,
/// the offset and the limit.
async fn server(pages: impl Fn(usize, usize, usize) -> Vec<usize> + Send + Sync + 'static) -> Server {
    let requests = AtomicUsize::new(0);
    Server::start(move |request: &Request| match *below(&request.path) {
        ["studies"] if request.query.len() > 2 => Reply::new(400),
        ["studies"] => {
            let number = |name: &str| request.query[name].parse().unwrap();
            let page = pages(requests.fetch_add(1, SeqCst), number("offset"), number("limit"));
            Reply::json(&page.into_iter().map(row).collect::<Vec<_>>())
        }
        ["studies", study, "series"] => {
            let series = [uid("0020000E", &format!("{study}.1")), count("00201209", 1)];
            Reply::json(&[series.into_iter().collect()])
        }
        ["studies", _, "series", series, "instances"] => {
            Reply::json(&[[uid("00080018", &format!("{series}.1"))].into_iter().collect()])
        }
        _ => Reply::new(404),
    })
    .await
}

fn page(rows: impl IntoIterator<Item = usize>, offset: usize, limit: usize) -> Vec<usize> {
    rows.into_iter().skip(offset).take(limit).collect()
}

async fn listed(server: &Server) -> (BTreeSet<String>, Page) {
    let source = DicomWebSource::builder(server.root()).page_size(50).build().unwrap();
    let all = everything(&source, 1000).await.unwrap();
    let studies = all.instances.iter().map(|one| one.identifier().study_instance_uid().to_string());
    let studies: BTreeSet<_> = studies.collect();
    assert_eq!(studies.len(), all.instances.len());
    (studies, all)
}

/// Every number below [`STUDIES`], in an order that depends on the seed.
fn shuffled(seed: usize) -> Vec<usize> {
    let mut rows: Vec<_> = (0..STUDIES).collect();
    shuffle(&mut rows, seed as u64);
    rows
}

/// Fisher–Yates with a linear congruential generator.
fn shuffle(rows: &mut [usize], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for at in (1..rows.len()).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        rows.swap(at, (state >> 33) as usize % (at + 1));
    }
}

#[tokio::test]
async fn a_list_that_changes_is_read_until_it_is_complete() {
    type Pages = Box<dyn Fn(usize, usize, usize) -> Vec<usize> + Send + Sync>;
    let all = || 0..STUDIES;
    let cases: Vec<(&str, Pages)> = vec![
        ("stable", Box::new(move |_, offset, limit| page(all(), offset, limit))),
        (
            "another order each time",
            Box::new(|requests, offset, limit| page(shuffled(requests), offset, limit)),
        ),
        (
            "another order each time, with small pages",
            Box::new(|requests, offset, limit| page(shuffled(requests), offset, limit.min(50))),
        ),
        (
            "another order for every second page",
            Box::new(|requests, offset, limit| page(shuffled(requests % 2), offset, limit.min(50))),
        ),
        (
            "each row twice",
            Box::new(move |_, offset, limit| page(all().flat_map(|row| [row, row]), offset, limit)),
        ),
        (
            "pages that overlap",
            Box::new(move |_, offset, limit| page(all(), offset.saturating_sub(15), limit)),
        ),
        (
            "rows that replace others at first",
            Box::new(move |requests, offset, limit| {
                page(all().map(|row| if requests < 5 && row % 7 == 6 { row - 1 } else { row }), offset, limit)
            }),
        ),
        (
            "rows that are hidden at first",
            Box::new(move |requests, offset, limit| {
                page(all().filter(|row| !(1..=4).contains(&requests) || row % 50 < 30), offset, limit)
            }),
        ),
        (
            "an empty page in the middle",
            Box::new(move |_, offset, limit| match (99..140).contains(&offset) {
                true => Vec::new(),
                false => page(all(), offset, limit.min(50)),
            }),
        ),
        (
            "rows that are filtered after paging",
            Box::new(move |_, offset, limit| {
                let rows = page(0..STUDIES * 2, offset, limit.min(50));
                rows.into_iter().filter(|row| row % 4 < 2).map(|row| row / 4 * 2 + row % 4).collect()
            }),
        ),
        (
            "rows that are added",
            Box::new(move |requests, offset, limit| {
                page((STUDIES..STUDIES + requests).rev().chain(all()), offset, limit)
            }),
        ),
    ];
    for (name, pages) in cases {
        let server = server(pages).await;
        let (studies, all) = listed(&server).await;
        let missing: Vec<_> = (0..STUDIES).map(study).filter(|study| !studies.contains(study)).collect();
        assert!(missing.is_empty(), "{name}: {} are missing: {missing:?}", missing.len());
        assert!(all.failures.is_empty(), "{name}: {:?}", all.failures);
    }
}

/// Rows that are deleted shift the others. Only the deleted ones may be missing.
#[tokio::test]
async fn rows_that_are_deleted_hide_no_others() {
    for deleted in [1, 37, 75] {
        let server = server(move |requests, offset, limit| {
            page((0..STUDIES).skip(if requests > 1 { deleted } else { 0 }), offset, limit)
        })
        .await;
        let (studies, all) = listed(&server).await;
        assert!((deleted..STUDIES).all(|row| studies.contains(&study(row))), "{deleted}");
        assert!(all.failures.is_empty(), "{:?}", all.failures);
    }
}

/// A list that has other rows each time cannot be complete.
#[tokio::test]
async fn a_list_that_keeps_changing_is_a_failure() {
    let server =
        server(|requests, offset, limit| page(requests * 50..requests * 50 + 60, offset, limit)).await;
    let (studies, all) = listed(&server).await;
    assert!(studies.len() > 60);
    let failures: Vec<_> = all.failures.iter().map(|failure| &*failure.error).collect();
    assert_eq!(failures, ["studies may be missing: their list changes each time it is read"]);
    assert_eq!(all.warnings.iter().map(|warning| &*warning.code).collect::<Vec<_>>(), ["listChanged"]);
}

/// The check of a list costs requests in proportion to its length.
#[tokio::test]
async fn a_stable_list_is_read_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let server = server(move |_, offset, limit| {
        count.fetch_add(1, SeqCst);
        page(0..STUDIES, offset, limit)
    })
    .await;
    listed(&server).await;
    // Pages of 50 rows that overlap by one, the last row again, and a page past the end.
    assert_eq!(requests.load(SeqCst), 6 + 1 + 1);
}
