//! `--source`: a folder, or a DICOMweb server.

use std::path::Path;
use std::sync::Arc;

use dicom_export::{DirectorySource, InstanceSource, Result};

#[cfg(feature = "dicomweb")]
#[path = "dicomweb.rs"]
mod dicomweb;
#[cfg(not(feature = "dicomweb"))]
#[path = "no_dicomweb.rs"]
mod dicomweb;

#[derive(Clone)]
pub(crate) enum Source {
    Folder(Arc<DirectorySource>),
    Server(Arc<dyn InstanceSource>),
}

impl Source {
    /// A URL is a server's, anything else a folder, which reads so many bytes ahead.
    pub(crate) fn open(given: &Path, read_ahead: Option<u64>) -> Result<Self> {
        let url = given.to_str().filter(|text| {
            let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            matches!(scheme.as_deref(), Some("http" | "https"))
        });
        Ok(match url {
            Some(url) => Self::Server(dicomweb::open(url)?),
            None => {
                let folder = DirectorySource::open(given)?;
                Self::Folder(Arc::new(match read_ahead {
                    Some(bytes) => folder.read_ahead(bytes),
                    None => folder,
                }))
            }
        })
    }

    pub(crate) fn instances(&self) -> Arc<dyn InstanceSource> {
        match self {
            Self::Folder(folder) => Arc::clone(folder) as _,
            Self::Server(server) => Arc::clone(server),
        }
    }
}
