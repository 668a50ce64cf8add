//! The source of the guide `docs/server.md`, on a real server.

use std::collections::BTreeMap;

use dicom_export::sqlx;
use dicom_export::testing::{fixtures, source_conformance};

use crate::postgres::Postgres;

#[path = "archive.rs"]
#[allow(unreachable_pub, clippy::cast_possible_wrap, reason = "the guide's code, as it is")]
mod archive;

const GUIDE: &str = include_str!("../../docs/server.md");

/// The first block of the guide in this language.
fn block(language: &str) -> &'static str {
    let start = GUIDE.split_once(&format!("```{language}\n")).expect("a block").1;
    start.split_once("```").expect("an end").0
}

#[tokio::test]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn the_source_of_the_guide_passes_the_conformance_suite() {
    assert_eq!(block("rust"), include_str!("archive.rs"), "the guide and the file differ");
    let server = Postgres::start().await;
    let pool = server.pool().await;
    sqlx::raw_sql(block("sql")).execute(&pool).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    for (study, series) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)] {
        for number in 0..5 {
            let (id, bytes) =
                (fixtures::instance(study, series, number), fixtures::ct_slice(study, series, number));
            let path = folder.path().join(format!("{study}.{series}.{number}"));
            std::fs::write(&path, &bytes).unwrap();
            for version in [1, 2] {
                sqlx::query("INSERT INTO instance VALUES ('north', $1, $2, $3, $4, $5, $6, $7)")
                    .bind(id.study_instance_uid().as_str())
                    .bind(id.series_instance_uid().as_str())
                    .bind(id.sop_instance_uid().as_str())
                    .bind(version)
                    .bind(version == 2)
                    .bind(i64::try_from(bytes.len()).unwrap())
                    .bind(path.to_str().unwrap())
                    .execute(&pool)
                    .await
                    .unwrap();
            }
            expected.insert(id, bytes);
        }
    }
    let open = || archive::Archive { pool: pool.clone(), tenant: "north".to_owned() };
    source_conformance(open, &expected).await;
}
