//! Orthanc that limits the results of queries: `LimitFindResults` and `LimitFindInstances`.

use std::collections::BTreeSet;

use dicom_export::source::{ListRequest, Page, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{DicomWebSource, InstanceIdentifier, InstanceSource};
use serde_json::json;

use crate::server::Orthanc;
use crate::{fill, pydicom_files, source};

pub(crate) async fn everything(source: &DicomWebSource) -> (BTreeSet<InstanceIdentifier>, Page) {
    let (mut all, mut after) = (Page::default(), None);
    loop {
        let page = source.list(ListRequest::new(Scope::Everything, after.as_ref(), 1000)).await.unwrap();
        all.instances.extend(page.instances);
        all.failures.extend(page.failures);
        all.warnings.extend(page.warnings);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    (all.instances.iter().map(|one| one.identifier().clone()).collect(), all)
}

/// Studies with different dates, with the same date, and without a date; series with more instances than the limit.
#[tokio::test]
#[ignore = "needs Orthanc: tests/run.sh"]
async fn an_archive_behind_limits_is_listed_completely() {
    let real = pydicom_files();
    let same_day: Vec<_> = (1..=36).map(|study| fixtures::ct_slice(study, 1, 1)).collect();
    let series = (1..=25).map(|instance| fixtures::ct_slice(1, 2, instance));
    let many_series = (3..=16).map(|series| fixtures::ct_slice(1, series, 1));
    let one_study: Vec<_> = series.chain(many_series).collect();
    for (name, limits, undated, files) in [
        ("real files", 10, true, real.clone()),
        ("one day", 10, false, same_day.clone()),
        (
            "one day, with more series and instances than the limit",
            10,
            false,
            [&same_day[..], &one_study].concat(),
        ),
        ("everything", 20, false, [&same_day[..], &one_study, &real].concat()),
    ] {
        let limits = json!({ "LimitFindResults": limits, "LimitFindInstances": limits });
        let orthanc = Orthanc::start_with(limits).await;
        fill(&orthanc, files).await;
        let (stored, ambiguous) = orthanc.everything().await;
        let (listed, all) = everything(&source(&orthanc)).await;
        let missing: Vec<_> = stored.keys().filter(|one| !listed.contains(one)).collect();
        let failures: Vec<_> = all.failures.iter().map(|failure| &*failure.error).collect();
        if undated {
            // Four of pydicom's files have neither a date nor a patient.
            assert!(missing.len() <= 4, "{name}: {} are missing: {missing:?}", missing.len());
            assert_eq!(failures, ["studies are missing: the server caps their list"], "{name}");
        } else {
            assert!(missing.is_empty(), "{name}: {} are missing: {missing:?}", missing.len());
            assert_eq!(listed.len(), stored.len() + ambiguous.len(), "{name}");
            assert!(failures.is_empty(), "{name}: {failures:?}");
        }
        assert!(
            all.warnings.iter().any(|warning| warning.code == "listCapped"),
            "{name}: {:?}",
            all.warnings
        );
    }
}
