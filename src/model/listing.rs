//! What a listing is made of: [`Page`], [`Instance`], [`Cursor`].

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DicomIdentifier, InstanceIdentifier};
use crate::sync::lock;

/// What a listing covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Every instance of the source.
    Everything,
    /// The instances under this identifier.
    Identifier(&'a DicomIdentifier),
}

/// What is asked of [`InstanceSource::list`](crate::InstanceSource::list).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ListRequest<'a> {
    /// What the listing covers.
    pub scope: Scope<'a>,
    /// The cursor of the page before; `None` for the first.
    pub after: Option<&'a Cursor>,
    /// How many instances and failures the page holds at most; at least 1.
    pub limit: usize,
}

impl<'a> ListRequest<'a> {
    /// From its parts.
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
            /// This text.
            pub fn new(text: impl Into<Box<str>>) -> Self {
                Self(text.into())
            }

            /// A value of the source's own, as JSON.
            ///
            /// # Errors
            /// [`ErrorKind::Internal`] when it cannot be written as JSON.
            pub fn encode(value: &impl Serialize) -> Result<Self> {
                serde_json::to_string(value).map(Self::new).map_err(|cause| {
                    Error::new(ErrorKind::Internal, concat!("a ", stringify!($name), " cannot be written"))
                        .with_source(cause)
                })
            }

            /// The value that [`encode`](Self::encode) wrote.
            ///
            /// # Errors
            /// [`ErrorKind::Internal`] when it is not one: the source's form changed since it was stored.
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
            /// Hides the text: paths and keys carry patients' names.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

opaque! {
    /// Where a listing goes on: "after the last one returned". It is the source's own, and it is stored with the
    /// operation's checkpoint, so it is small.
    Cursor
}

opaque! {
    /// How a source finds an instance again: a path, a row's id and version, an ETag. It may travel to another
    /// process, so it holds no secret.
    Locator
}

/// One SOP instance that a source listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Instance {
    identifier: InstanceIdentifier,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default)]
    locator: Locator,
    #[serde(skip)]
    ahead: Ahead,
}

impl Instance {
    /// The instance, to be found by its identifier alone.
    pub fn new(identifier: InstanceIdentifier) -> Self {
        Self { identifier, size: None, locator: Locator::default(), ahead: Ahead::default() }
    }

    /// With its size in bytes. It lets the engine book memory exactly; the length that
    /// [`Content`](crate::Content) states when it is opened is what counts.
    pub fn with_size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// With what its source finds it by.
    pub fn with_locator(mut self, locator: Locator) -> Self {
        self.locator = locator;
        self
    }

    /// With all its bytes, for a source that came by them while it listed, to give when it is asked to
    /// [`open`](crate::InstanceSource::open) the instance. They are held until then, or until the instance is dropped,
    /// beside the engine's byte budget: how many there are at once is for the source to bound. They are not stored with
    /// the instance and do not travel with it.
    pub fn with_read_ahead(mut self, bytes: Bytes) -> Self {
        self.ahead = Ahead(Some(Arc::new(Mutex::new(Some(bytes)))));
        self
    }

    /// Takes out what [`with_read_ahead`](Self::with_read_ahead) put there; the second call finds nothing.
    pub fn take_read_ahead(&self) -> Option<Bytes> {
        lock(self.ahead.0.as_ref()?).take()
    }

    /// Which instance it is.
    pub fn identifier(&self) -> &InstanceIdentifier {
        &self.identifier
    }

    /// Its size in bytes, if the source knows it without opening it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// What its source finds it by.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }
}

/// What was read of an instance already: nothing of what it is.
#[derive(Clone, Default)]
struct Ahead(Option<Arc<Mutex<Option<Bytes>>>>);

impl PartialEq for Ahead {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Ahead {}

impl fmt::Debug for Ahead {
    /// Shows whether it has been taken, and no byte: they are a patient's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = self.0.as_ref().is_some_and(|bytes| lock(bytes).is_some());
        f.write_str(if there { "Some(..)" } else { "None" })
    }
}

/// A row or file that cannot be listed, because its UIDs are unusable say: counted as skipped, and logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListFailure {
    /// What is known of it: `<study>[/<series>[/<sop instance>]]`, or nothing.
    pub identifier: String,
    /// A public message.
    pub error: String,
}

impl ListFailure {
    /// From what is known of it and a public message.
    pub fn new(identifier: impl Into<String>, error: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), error: error.into() }
    }
}

/// Something about the listing that the operation's owner should know, and that is not an instance left out:
/// counted by its code over the whole operation, and shown in the status document's `warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListWarning {
    /// camelCase, stable.
    pub code: Cow<'static, str>,
    /// A public message about one or many; the count is added to it.
    pub message: Cow<'static, str>,
    /// How many times in this page.
    pub count: u64,
}

impl ListWarning {
    /// From its parts.
    pub fn new(
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
        count: u64,
    ) -> Self {
        Self { code: code.into(), message: message.into(), count }
    }
}

/// What a source returns at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Page {
    /// The instances, in the source's order.
    pub instances: Vec<Instance>,
    /// What could not be listed.
    pub failures: Vec<ListFailure>,
    /// What else is to be said.
    pub warnings: Vec<ListWarning>,
    /// Where to go on; `None`: there is nothing more.
    pub next: Option<Cursor>,
}

impl Page {
    /// The last page of a scope, or its only one.
    pub fn last(instances: Vec<Instance>) -> Self {
        Self { instances, ..Self::default() }
    }

    /// A page with more after it.
    pub fn more(instances: Vec<Instance>, next: Cursor) -> Self {
        Self { instances, next: Some(next), ..Self::default() }
    }

    /// With what could not be listed.
    pub fn with_failures(mut self, failures: Vec<ListFailure>) -> Self {
        self.failures = failures;
        self
    }

    /// With what else is to be said.
    pub fn with_warnings(mut self, warnings: Vec<ListWarning>) -> Self {
        self.warnings = warnings;
        self
    }
}
