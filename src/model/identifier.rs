//! DICOM identifiers: [`Uid`], [`DicomIdentifier`] and [`InstanceIdentifier`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of an identifier in bytes: three UIDs and their separators.
pub(super) const MAX_IDENTIFIER_LEN: usize = 3 * Uid::MAX_LEN + 2;

/// A DICOM unique identifier (PS3.5 9): 1 to 64 digits and dots, ending in a digit.
///
/// Leading zeros in a component are accepted: PS3.5 9.1 forbids them, but they exist in practice. Clones share the text.
///
/// ```
/// use dicom_export::Uid;
///
/// let uid: Uid = "1.2.840.10008.1.2".parse()?;
/// assert_eq!(uid.as_str(), "1.2.840.10008.1.2");
/// assert!(Uid::new("1.2.").is_err());
/// // A value that was read from a data set may be padded.
/// assert_eq!(Uid::from_padded("1.2.840.10008.1.2\0")?, uid);
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Arc<str>);

impl Uid {
    /// The maximum length of a UID (PS3.5 9.1), in characters.
    pub const MAX_LEN: usize = 64;

    /// Parses a UID without changing the text.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the text is not a UID. The message describes the fault and does not contain the text.
    pub fn new(text: &str) -> Result<Self> {
        match Self::fault(text) {
            None => Ok(Self(Arc::from(text))),
            Some(fault) => Err(Error::new(ErrorKind::Invalid, fault)),
        }
    }

    /// Creates a UID from a value of a data set, without its padding. PS3.5 9.1 pads UIDs with a trailing NUL; files with
    /// spaces on either side exist.
    ///
    /// # Errors
    /// The same as [`Uid::new`].
    pub fn from_padded(value: &str) -> Result<Self> {
        Self::new(value.trim_matches([' ', '\0']))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn fault(text: &str) -> Option<&'static str> {
        if text.is_empty() {
            Some("the UID is empty")
        } else if text.len() > Self::MAX_LEN {
            Some("the UID is longer than 64 characters")
        } else if !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            Some("the UID contains a character other than digits and dots")
        } else if text.ends_with('.') {
            Some("the UID ends in a dot")
        } else {
            None
        }
    }
}

/// The three UIDs that identify a SOP instance: study, series, SOP instance (PS3.3 A.1).
///
/// ```
/// use dicom_export::InstanceIdentifier;
///
/// let instance: InstanceIdentifier = "1.2.3/4.5/6.7".parse()?;
/// assert_eq!(instance.series_instance_uid().as_str(), "4.5");
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceIdentifier {
    study: Uid,
    series: Uid,
    sop: Uid,
}

impl InstanceIdentifier {
    /// Combines Study Instance UID (0020,000D), Series Instance UID (0020,000E) and SOP Instance UID (0008,0018).
    pub fn new(study_instance_uid: Uid, series_instance_uid: Uid, sop_instance_uid: Uid) -> Self {
        Self { study: study_instance_uid, series: series_instance_uid, sop: sop_instance_uid }
    }

    /// Study Instance UID (0020,000D).
    pub fn study_instance_uid(&self) -> &Uid {
        &self.study
    }

    /// Series Instance UID (0020,000E).
    pub fn series_instance_uid(&self) -> &Uid {
        &self.series
    }

    /// SOP Instance UID (0008,0018).
    pub fn sop_instance_uid(&self) -> &Uid {
        &self.sop
    }
}

/// Identifies a study, a series or an instance: `<study>[/<series>[/<sop instance>]]`.
///
/// ```
/// use dicom_export::DicomIdentifier;
///
/// let series: DicomIdentifier = "1.2.3/4.5".parse()?;
/// assert!(series.covers(&"1.2.3/4.5/6.7".parse()?));
/// assert!(!series.covers(&"1.2.3/9/6.7".parse()?));
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DicomIdentifier {
    study: Uid,
    series: Option<Uid>,
    sop: Option<Uid>,
}

impl DicomIdentifier {
    /// A whole study.
    pub fn study(study_instance_uid: Uid) -> Self {
        Self { study: study_instance_uid, series: None, sop: None }
    }

    /// A whole series.
    pub fn series(study_instance_uid: Uid, series_instance_uid: Uid) -> Self {
        Self { study: study_instance_uid, series: Some(series_instance_uid), sop: None }
    }

    /// One SOP instance.
    pub fn instance(study_instance_uid: Uid, series_instance_uid: Uid, sop_instance_uid: Uid) -> Self {
        Self { study: study_instance_uid, series: Some(series_instance_uid), sop: Some(sop_instance_uid) }
    }

    /// Study Instance UID (0020,000D).
    pub fn study_instance_uid(&self) -> &Uid {
        &self.study
    }

    /// Series Instance UID (0020,000E), unless this is a study.
    pub fn series_instance_uid(&self) -> Option<&Uid> {
        self.series.as_ref()
    }

    /// SOP Instance UID (0008,0018), if this is an instance.
    pub fn sop_instance_uid(&self) -> Option<&Uid> {
        self.sop.as_ref()
    }

    /// From UIDs that have been validated.
    pub(super) fn from_valid(parts: [Option<&str>; 3]) -> Self {
        let [study, series, sop] = parts.map(|part| part.map(|text| Uid(Arc::from(text))));
        Self { study: study.unwrap_or_else(|| Uid(Arc::from(""))), series, sop }
    }

    /// A lower bound: no instance under this identifier sorts before it. The instances under it are adjacent in sort
    /// order.
    pub(crate) fn first_possible(&self) -> InstanceIdentifier {
        let least = || Uid(Arc::from(""));
        InstanceIdentifier {
            study: self.study.clone(),
            series: self.series.clone().unwrap_or_else(least),
            sop: self.sop.clone().unwrap_or_else(least),
        }
    }

    /// Whether the instance is under this identifier.
    pub fn covers(&self, instance: &InstanceIdentifier) -> bool {
        self.study == instance.study
            && self.series.as_ref().is_none_or(|series| *series == instance.series)
            && self.sop.as_ref().is_none_or(|sop| *sop == instance.sop)
    }
}

impl From<InstanceIdentifier> for DicomIdentifier {
    fn from(instance: InstanceIdentifier) -> Self {
        Self::instance(instance.study, instance.series, instance.sop)
    }
}

impl From<&InstanceIdentifier> for DicomIdentifier {
    fn from(instance: &InstanceIdentifier) -> Self {
        instance.clone().into()
    }
}

impl AsRef<str> for Uid {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for Uid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl FromStr for DicomIdentifier {
    type Err = Error;

    /// Parses one to three UIDs joined by `/`, and ignores white space around each.
    fn from_str(text: &str) -> Result<Self> {
        split_identifier(text).map(Self::from_valid)
    }
}

/// The texts of the one to three UIDs in an identifier; the first one is always there.
pub(super) fn split_identifier(text: &str) -> Result<[Option<&str>; 3]> {
    let mut parts = [None; 3];
    for (at, part) in text.split('/').map(str::trim).enumerate() {
        if let Some(fault) = Uid::fault(part) {
            return Err(Error::new(ErrorKind::Invalid, fault));
        }
        *parts.get_mut(at).ok_or_else(not_an_identifier)? = Some(part);
    }
    Ok(parts)
}

fn not_an_identifier() -> Error {
    let message = "an identifier must be one to three UIDs joined by '/': study, series, SOP instance";
    Error::new(ErrorKind::Invalid, message)
}

impl FromStr for InstanceIdentifier {
    type Err = Error;

    /// Parses three UIDs joined by `/`.
    fn from_str(text: &str) -> Result<Self> {
        match text.parse()? {
            DicomIdentifier { study, series: Some(series), sop: Some(sop) } => {
                Ok(Self { study, series, sop })
            }
            _ => {
                Err(Error::new(ErrorKind::Invalid, "an instance identifier must be three UIDs joined by '/'"))
            }
        }
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InstanceIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.study, self.series, self.sop)
    }
}

impl fmt::Display for DicomIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.study.0)?;
        for part in [&self.series, &self.sop].into_iter().flatten() {
            write!(f, "/{part}")?;
        }
        Ok(())
    }
}

macro_rules! text_traits {
    ($($name:ident),*) => {$(
        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self> {
                text.parse()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

text_traits!(Uid, InstanceIdentifier, DicomIdentifier);
