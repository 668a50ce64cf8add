//! A DICOMweb server, with credentials from the environment.

use std::env;
use std::sync::Arc;

use dicom_export::source::{DicomWebCredentials, DicomWebSource};
use dicom_export::{Error, ErrorKind, InstanceSource, Result};

pub(crate) fn open(service_root: &str) -> Result<Arc<dyn InstanceSource>> {
    let variable = |name: &str| env::var(name).ok();
    let credentials =
        match (variable("DICOMWEB_USER"), variable("DICOMWEB_PASSWORD"), variable("DICOMWEB_TOKEN")) {
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
