//! Orthanc whose storage lost or damaged a file.

use dicom_export::source::{ListRequest, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{DicomIdentifier, InstanceSource};

use crate::limits::everything;
use crate::server::Orthanc;
use crate::{fill, source};

/// Orthanc fails every list that includes the damaged instance.
#[tokio::test]
#[ignore = "needs Orthanc: tests/run.sh"]
async fn a_damaged_file_hides_no_other_instance() {
    for content in [None, Some(&[0; 10][..])] {
        let mut orthanc = Orthanc::start().await;
        fill(&orthanc, (1..=15).map(|instance| fixtures::ct_slice(1, 1, instance)).collect()).await;
        let damaged = fixtures::instance(1, 1, 8);
        orthanc.damage(&damaged, content).await;
        let source = source(&orthanc);
        let series = fixtures::series_identifier(1, 1);
        let page = source.list(ListRequest::new(Scope::Identifier(&series), None, 100)).await.unwrap();
        let listed: Vec<_> = page.instances.iter().map(|one| one.identifier().clone()).collect();
        let all = (1..=15).map(|instance| fixtures::instance(1, 1, instance));
        assert_eq!(listed, all.filter(|one| *one != damaged).collect::<Vec<_>>(), "{content:?}");
        let failures = page.failures.iter().map(|failure| (&*failure.identifier, &*failure.error));
        let failures: Vec<_> = failures.collect();
        assert_eq!(
            failures,
            [(&*series.to_string(), "the server fails to list one instance")],
            "{content:?}"
        );

        // The lists of studies and series fail too: Orthanc reads a file for each row, perhaps the damaged one.
        let (listed, all) = everything(&source).await;
        assert_eq!(listed.len(), 14, "{content:?}: {:?}", all.failures);
        let failures: Vec<_> = all.failures.iter().map(|failure| &*failure.error).collect();
        assert_eq!(failures, ["the server fails to list one instance"], "{content:?}");

        // An instance that is asked for by its own identifier is left to the retrieval.
        let identifier: DicomIdentifier = damaged.into();
        let page = source.list(ListRequest::new(Scope::Identifier(&identifier), None, 10)).await.unwrap();
        assert_eq!(page.instances.len(), 1, "{content:?}");
    }
}
