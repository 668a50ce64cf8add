use async_trait::async_trait;
use dicom_export::source::{Cursor, Instance, ListFailure, ListRequest, Locator, Page, Scope};
use dicom_export::sqlx::{self, PgPool, Postgres, QueryBuilder};
use dicom_export::{Content, Error, ErrorKind, InstanceIdentifier, InstanceSource, Result, Uid};
use serde::{Deserialize, Serialize};

/// The instances of one tenant.
pub struct Archive {
    pub pool: PgPool,
    pub tenant: String,
}

/// The cursor: the key of the last row of a page.
#[derive(Default, Serialize, Deserialize)]
struct After(String, String, String);

/// Study, series, SOP instance, version, size, file.
type Row = (String, String, String, i64, i64, String);

const SELECT: &str = "SELECT study, series, sop, version, size, file FROM instance WHERE tenant = ";

const ONE: &str = "
    SELECT study, series, sop, version, size, file FROM instance
    WHERE tenant = $1 AND study = $2 AND series = $3 AND sop = $4 AND (version = $5 OR is_current)
    ORDER BY version = $5 DESC
    LIMIT 1";

#[async_trait]
impl InstanceSource for Archive {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut sql = QueryBuilder::<Postgres>::new(SELECT);
        sql.push_bind(&self.tenant).push(" AND is_current");
        if let Scope::Identifier(scope) = request.scope {
            sql.push(" AND study = ").push_bind(scope.study_instance_uid().as_str());
            if let Some(series) = scope.series_instance_uid() {
                sql.push(" AND series = ").push_bind(series.as_str());
            }
            if let Some(sop) = scope.sop_instance_uid() {
                sql.push(" AND sop = ").push_bind(sop.as_str());
            }
        }
        if let Some(cursor) = request.after {
            let After(study, series, sop) = cursor.decode()?;
            sql.push(" AND (study, series, sop) > (").push_bind(study);
            sql.push(", ").push_bind(series).push(", ").push_bind(sop).push(")");
        }
        sql.push(" ORDER BY study, series, sop LIMIT ").push_bind(request.limit as i64);
        let rows: Vec<Row> = sql.build_query_as().fetch_all(&self.pool).await.map_err(unavailable)?;

        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        for (study, series, sop, version, size, _) in &rows {
            match identifier(study, series, sop) {
                Ok(identifier) => {
                    let instance = Instance::new(identifier).with_size(*size as u64);
                    instances.push(instance.with_locator(Locator::new(version.to_string())));
                }
                // The engine counts a list failure as skipped, and logs it.
                Err(error) => {
                    failures.push(ListFailure::new(format!("{study}/{series}/{sop}"), error.to_string()));
                }
            }
        }
        let page = match rows.last() {
            Some((study, series, sop, ..)) if rows.len() == request.limit => {
                let after = After(study.clone(), series.clone(), sop.clone());
                Page::more(instances, Cursor::encode(&after)?)
            }
            _ => Page::last(instances),
        };
        Ok(page.with_failures(failures))
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let id = instance.identifier();
        let version: i64 = instance.locator().as_str().parse().unwrap_or_default();
        let row: Option<Row> = sqlx::query_as(ONE)
            .bind(&self.tenant)
            .bind(id.study_instance_uid().as_str())
            .bind(id.series_instance_uid().as_str())
            .bind(id.sop_instance_uid().as_str())
            .bind(version)
            .fetch_optional(&self.pool)
            .await
            .map_err(unavailable)?;
        match row {
            Some((.., file)) => Content::from_file(&file).await,
            None => Err(Error::new(ErrorKind::NotFound, "the instance was deleted")),
        }
    }
}

fn identifier(study: &str, series: &str, sop: &str) -> Result<InstanceIdentifier> {
    // Removes the padding that a UID has in a data set (PS3.5 9.1).
    let uid = Uid::from_padded;
    Ok(InstanceIdentifier::new(uid(study)?, uid(series)?, uid(sop)?))
}

/// The engine retries `Unavailable`. The message is public; the cause goes only to the log.
fn unavailable(cause: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the archive's database cannot be reached").with_source(cause)
}
