//! `--source`: a folder, a DICOMweb server or a bucket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dicom_export::{DirectorySource, Error, ErrorKind, InstanceSource, Result};

use super::{gcs, s3};

#[derive(Clone)]
pub(crate) enum Source {
    Folder(Arc<DirectorySource>),
    Remote(Arc<dyn InstanceSource>),
}

/// How to open a source. The default is that of [`DirectorySource`], and no stores on this machine.
#[derive(Default)]
pub(crate) struct SourceOptions {
    /// The cache of small files of a folder, in bytes.
    pub(crate) read_ahead: Option<u64>,
    /// The file that keeps an index of a folder.
    pub(crate) index: Option<PathBuf>,
    /// How instances are found in a bucket: a template, or the key of an index.
    pub(crate) layout: Option<String>,
    /// Permits stores on this machine.
    pub(crate) development: bool,
}

impl Source {
    /// Opens a DICOMweb server if `location` is an http or https URL, a bucket if it is an s3 or gs URL, otherwise a folder.
    pub(crate) fn open(location: &Path, options: SourceOptions) -> Result<Self> {
        let text = location.to_str().unwrap_or_default();
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let layout = options.layout.as_deref();
        if layout.is_some() && !matches!(scheme.as_deref(), Some("gs" | "s3")) {
            return Err(Error::new(ErrorKind::Invalid, "only a bucket can have a layout"));
        }
        Ok(match scheme.as_deref() {
            Some("http" | "https" | "gs" | "s3") if options.index.is_some() => {
                return Err(Error::new(ErrorKind::Invalid, "only a folder can have an index"));
            }
            Some("http" | "https") => Self::Remote(open_server(text)?),
            Some("gs") => Self::Remote(gcs::source(text, layout)?),
            Some("s3") => Self::Remote(s3::source(text, options.development, layout)?),
            _ => {
                let mut folder = DirectorySource::open(location)?;
                if let Some(bytes) = options.read_ahead {
                    folder = folder.read_ahead(bytes);
                }
                if let Some(file) = options.index {
                    folder = folder.with_index(file)?;
                }
                Self::Folder(Arc::new(folder))
            }
        })
    }

    pub(crate) fn instances(&self) -> Arc<dyn InstanceSource> {
        match self {
            Self::Folder(folder) => Arc::clone(folder) as _,
            Self::Remote(source) => Arc::clone(source),
        }
    }
}

/// Sets how instances are found in a bucket. A template has placeholders in braces.
#[cfg(any(feature = "gcs", feature = "s3"))]
pub(crate) fn with_layout(
    bucket: dicom_export::ObjectStoreSource,
    layout: Option<&str>,
) -> Result<Arc<dyn InstanceSource>> {
    use dicom_export::source::ObjectLayout;

    let layout = match layout {
        Some(template) if template.contains('{') => ObjectLayout::template(template)?,
        Some(index) => ObjectLayout::index(index)?,
        None => ObjectLayout::default(),
    };
    Ok(Arc::new(bucket.with_layout(layout)))
}

/// Opens a DICOMweb server with the credentials in the environment.
#[cfg(feature = "dicomweb")]
fn open_server(service_root: &str) -> Result<Arc<dyn InstanceSource>> {
    use dicom_export::source::{DicomWebCredentials, DicomWebSource};

    let [user, password, token] =
        ["DICOMWEB_USER", "DICOMWEB_PASSWORD", "DICOMWEB_TOKEN"].map(|variable| std::env::var(variable).ok());
    let credentials = match (user, password, token) {
        (Some(user), Some(password), None) => DicomWebCredentials::basic(user, password),
        (None, None, Some(token)) => DicomWebCredentials::bearer(token),
        (None, None, None) => DicomWebCredentials::anonymous(),
        _ => {
            let message = "set DICOMWEB_USER and DICOMWEB_PASSWORD, or DICOMWEB_TOKEN";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    };
    Ok(Arc::new(DicomWebSource::builder(service_root).credentials(credentials).build()?))
}

#[cfg(not(feature = "dicomweb"))]
fn open_server(_: &str) -> Result<Arc<dyn InstanceSource>> {
    Err(Error::new(ErrorKind::Unsupported, "a server as --source requires a build with --features dicomweb"))
}
