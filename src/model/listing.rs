//! The types of a listing: [`ListRequest`], [`Page`], [`Instance`], [`Cursor`].

use std::borrow::Cow;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DicomIdentifier, InstanceIdentifier};

/// The instances that a listing covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every instance of the source.
    Everything,
    /// The instances under this identifier.
    Identifier(&'a DicomIdentifier),
}

/// The arguments of [`InstanceSource::list`](crate::InstanceSource::list).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListRequest<'a> {
    /// The instances that the listing covers.
    pub scope: Scope<'a>,
    /// The cursor of the previous page; `None` for the first page.
    pub after: Option<&'a Cursor>,
    /// The maximum number of instances and failures together in the page; at least 1.
    pub limit: usize,
}

impl<'a> ListRequest<'a> {
    /// Creates a request. A `limit` of 0 becomes 1.
    pub fn new(scope: Scope<'a>, after: Option<&'a Cursor>, limit: usize) -> Self {
        Self { scope, after, limit: limit.max(1) }
    }
}

macro_rules! opaque {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Creates a value from this text.
            pub fn new(text: impl Into<Box<str>>) -> Self {
                Self(text.into())
            }

            /// Writes a value of the source as JSON.
            ///
            /// # Errors
            /// [`ErrorKind::Internal`] if the value cannot be written as JSON.
            pub fn encode(value: &impl Serialize) -> Result<Self> {
                serde_json::to_string(value).map(Self::new).map_err(|cause| {
                    Error::new(ErrorKind::Internal, concat!("a ", stringify!($name), " cannot be written"))
                        .with_source(cause)
                })
            }

            /// Reads a value that [`encode`](Self::encode) wrote.
            ///
            /// # Errors
            /// [`ErrorKind::Internal`] if it cannot be read, for example after the source changed its format.
            pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
                // serde_json's message could quote the text.
                serde_json::from_str(&self.0).map_err(|_| {
                    Error::new(ErrorKind::Internal, concat!("a stored ", stringify!($name), " cannot be read"))
                })
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            /// Hides the text: paths and keys can contain patients' names.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

opaque! {
    /// The position in a listing after the last entry of a page.
    ///
    /// Its text is opaque to the engine: a source writes and reads it. It is stored with the operation's checkpoint, so
    /// it should be small (at most a few hundred bytes), and it must stay valid after a restart of the process. Default:
    /// empty.
    Cursor
}

opaque! {
    /// The key by which a source finds an instance again: a path, a row's id and version, an ETag.
    ///
    /// Its text is opaque to the engine. It may be sent to another process and stored, so it must not contain a secret.
    /// Default: empty.
    Locator
}

/// One SOP instance that a source listed: its identifier, its size if it is known, and the source's [`Locator`].
///
/// ```
/// use dicom_export::InstanceIdentifier;
/// use dicom_export::source::{Instance, Locator};
///
/// let identifier: InstanceIdentifier = "1.2.3/1.2.3.1/1.2.3.1.1".parse()?;
/// let instance = Instance::new(identifier).with_size(526_336).with_locator(Locator::new("row 4711"));
/// assert_eq!(instance.size(), Some(526_336));
/// # Ok::<(), dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    identifier: InstanceIdentifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default)]
    locator: Locator,
}

impl Instance {
    /// Creates an instance without a size and with an empty locator.
    pub fn new(identifier: InstanceIdentifier) -> Self {
        Self { identifier, size: None, locator: Locator::default() }
    }

    /// Sets the size in bytes. The engine reserves this much memory for the instance; without a size it reserves the
    /// destination's [`buffer_size`](crate::BlobSink::buffer_size) for an unknown length.
    #[must_use]
    pub fn with_size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Sets the key by which the source finds the instance again.
    #[must_use]
    pub fn with_locator(mut self, locator: Locator) -> Self {
        self.locator = locator;
        self
    }

    /// The three UIDs of the instance.
    pub fn identifier(&self) -> &InstanceIdentifier {
        &self.identifier
    }

    /// The size in bytes, if the source knows it without opening the instance.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The key by which the source finds the instance again.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }
}

/// An entry of the source that cannot be listed as an instance, for example because its UIDs are invalid.
///
/// It counts as skipped and gets a line in `errors.log`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListFailure {
    /// The known part of the identifier: `<study>[/<series>[/<sop instance>]]`, or empty.
    pub identifier: String,
    /// The public message: no path, no patient data.
    pub error: String,
}

impl ListFailure {
    /// Creates a failure from the known part of the identifier, which may be empty, and a public message.
    pub fn new(identifier: impl Into<String>, error: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), error: error.into() }
    }
}

/// A remark about the listing, other than a skipped entry.
///
/// Warnings are counted by code over the whole operation and are part of the status document's `warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListWarning {
    /// A stable identifier in camelCase.
    pub code: Cow<'static, str>,
    /// The public message; the status document appends the count to it.
    pub message: Cow<'static, str>,
    /// The number of occurrences in this page.
    pub count: u64,
}

impl ListWarning {
    /// Creates a warning.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
        count: u64,
    ) -> Self {
        Self { code: code.into(), message: message.into(), count }
    }
}

/// A page of a listing. Default: an empty last page.
///
/// ```
/// use dicom_export::source::{Cursor, ListFailure, Page};
///
/// let failure = ListFailure::new("1.2.3", "the series has no valid Series Instance UID");
/// let page = Page::more(vec![], Cursor::new("row 4711")).with_failures(vec![failure]);
/// assert!(page.next.is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The instances, in the source's order.
    pub instances: Vec<Instance>,
    /// The entries that could not be listed.
    pub failures: Vec<ListFailure>,
    /// Warnings about this page.
    pub warnings: Vec<ListWarning>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// Creates the last page of a scope.
    pub fn last(instances: Vec<Instance>) -> Self {
        Self { instances, ..Self::default() }
    }

    /// Creates a page that another page follows.
    pub fn more(instances: Vec<Instance>, next: Cursor) -> Self {
        Self { instances, next: Some(next), ..Self::default() }
    }

    /// Sets the entries that could not be listed.
    #[must_use]
    pub fn with_failures(mut self, failures: Vec<ListFailure>) -> Self {
        self.failures = failures;
        self
    }

    /// Sets the warnings about this page.
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<ListWarning>) -> Self {
        self.warnings = warnings;
        self
    }
}
