//! A DICOMweb server, with credentials from the environment.

use std::env;
use std::sync::Arc;

use dicom_export::source::{DicomWebCredentials, DicomWebSource};
use dicom_export::{Error, ErrorKind, InstanceSource, Result};
use secrecy::SecretString;

pub(crate) fn open(service_root: &str) -> Result<Arc<dyn InstanceSource>> {
    let secret = |name: &str| env::var(name).ok().map(SecretString::from);
    let user = env::var("DICOMWEB_USER").ok();
    let credentials = match (user, secret("DICOMWEB_PASSWORD"), secret("DICOMWEB_TOKEN")) {
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
