//! [`UploadLister`]: lists the multipart uploads of a bucket, which `object_store` cannot.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::client::{HttpClient, HttpError, HttpRequest};
use object_store::path::Path;
use object_store::{Error as StoreError, MultipartId, Result as StoreResult};
use reqwest::Method;
use serde::Deserialize;
use url::Url;

/// The most pages of a listing that are read, of up to 1,000 uploads each.
const MAX_PAGES: usize = 1_000;

/// Adds a credential to a request.
#[async_trait]
pub(crate) trait SignRequest: Send + Sync {
    async fn sign(&self, request: &mut HttpRequest) -> StoreResult<()>;
}

/// Lists uploads with the operation ListMultipartUploads, which S3 and the XML API of Google Cloud Storage have in common.
pub(crate) struct UploadLister {
    store: &'static str,
    http: HttpClient,
    bucket_url: Url,
    signer: Arc<dyn SignRequest>,
}

impl UploadLister {
    pub(crate) fn new(
        store: &'static str,
        http: HttpClient,
        bucket_url: Url,
        signer: Arc<dyn SignRequest>,
    ) -> Self {
        Self { store, http, bucket_url, signer }
    }

    /// Lists the uploads whose paths begin with these segments, as their paths and ids.
    pub(crate) async fn list(&self, prefix: &Path) -> StoreResult<Vec<(Path, MultipartId)>> {
        let (prefix, mut uploads) = (format!("{prefix}/"), Vec::new());
        let mut after: Option<(String, String)> = None;
        for _ in 0..MAX_PAGES {
            let page = self.page(&prefix, after.as_ref()).await?;
            for Upload { key, upload_id } in page.uploads {
                // Some stores ignore the prefix.
                if key.starts_with(&prefix)
                    && let Ok(path) = Path::parse(&key)
                {
                    uploads.push((path, upload_id));
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            if !page.is_truncated || next.0.is_empty() || after.as_ref() == Some(&next) {
                break;
            }
            after = Some(next);
        }
        Ok(uploads)
    }

    async fn page(&self, prefix: &str, after: Option<&(String, String)>) -> StoreResult<UploadPage> {
        let mut url = self.bucket_url.clone();
        url.query_pairs_mut().append_pair("uploads", "").append_pair("prefix", prefix);
        if let Some((key, id)) = after {
            url.query_pairs_mut().append_pair("key-marker", key).append_pair("upload-id-marker", id);
        }
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.as_str().parse().map_err(|cause| self.error(cause))?;
        self.signer.sign(&mut request).await?;
        let response = self.http.execute(request).await.map_err(|cause| self.error(cause))?;
        let status = response.status();
        let body = response.into_body().bytes().await.map_err(|cause: HttpError| self.error(cause))?;
        if !status.is_success() {
            let path = prefix.to_owned();
            return Err(StoreError::NotFound { path, source: "the uploads cannot be listed".into() });
        }
        let text = str::from_utf8(&body).map_err(|cause| self.error(cause))?;
        quick_xml::de::from_str(text).map_err(|cause| self.error(cause))
    }

    fn error(&self, cause: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        StoreError::Generic { store: self.store, source: Box::new(cause) }
    }
}

impl fmt::Debug for UploadLister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadLister").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A response ("ListMultipartUploads", Amazon S3 API reference).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadPage {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        let page = r#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><KeyMarker/><NextKeyMarker>a/2</NextKeyMarker><NextUploadIdMarker>y</NextUploadIdMarker>
            <IsTruncated>true</IsTruncated>
            <Upload><Key>a/1</Key><UploadId>x</UploadId><Initiator><ID>i</ID></Initiator></Upload>
            <Upload><Key>a/2</Key><UploadId>y</UploadId></Upload></ListMultipartUploadsResult>"#;
        let page: UploadPage = quick_xml::de::from_str(page).unwrap();
        let uploads: Vec<_> = page.uploads.iter().map(|upload| (&*upload.key, &*upload.upload_id)).collect();
        assert_eq!(uploads, [("a/1", "x"), ("a/2", "y")]);
        assert!(page.is_truncated);
        assert_eq!((&*page.next_key_marker, &*page.next_upload_id_marker), ("a/2", "y"));
        let empty: UploadPage = quick_xml::de::from_str(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        )
        .unwrap();
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
