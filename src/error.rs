//! [`Error`] and [`ErrorKind`].

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::iter;
use std::time::Duration;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn StdError + Send + Sync>;

/// The kind of an [`Error`]: what happened. The engine decides whether to retry, to skip or to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It does not exist: a deleted instance, an unknown container or operation.
    NotFound,
    /// It exists, but its bytes cannot be read: damaged, refused, or shorter than declared.
    Unreadable,
    /// The remote service asks for fewer requests (429, 503 with `Retry-After`).
    Throttled,
    /// The remote service cannot be reached or has failed. The same call may succeed later.
    Unavailable,
    /// The credential is missing, refused or expired.
    Unauthorized,
    /// The credential of an operation has been deleted. Resume the operation with a destination.
    CredentialsNeeded,
    /// The input is invalid. [`Error::pointer`] names the property, if there is one.
    Invalid,
    /// The state does not allow it: it already exists, was changed concurrently, or is held by another runner.
    Conflict,
    /// An instance is larger than the destination can store.
    TooLarge,
    /// A configured limit is reached, for example that of running operations. The same call may succeed later.
    LimitReached,
    /// The input is valid, but not supported.
    Unsupported,
    /// A defect in this crate or in a host's implementation of its traits.
    Internal,
}

impl ErrorKind {
    /// The name in camelCase, as in the `error.code` of a status document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "notFound",
            Self::Unreadable => "unreadable",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unauthorized => "unauthorized",
            Self::CredentialsNeeded => "credentialsNeeded",
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
            Self::TooLarge => "tooLarge",
            Self::LimitReached => "limitReached",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may succeed later without any change.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::LimitReached)
    }
}

/// An error of a source, a sink, a store or the engine.
///
/// [`Display`](fmt::Display) prints the **public message**: it is written to `errors.log`, status documents and HTTP
/// responses, so it must not contain secrets, patient data or paths. The underlying error is available through
/// [`source()`](StdError::source) and is not part of the message.
///
/// ```
/// use dicom_export::{Error, ErrorKind};
///
/// let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::new(ErrorKind::Unavailable, "the archive's database cannot be reached").with_source(cause);
/// assert_eq!(error.to_string(), "the archive's database cannot be reached");
/// assert!(error.kind().is_transient());
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    pointer: Option<String>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Error {
    /// Creates an error with this kind and public message.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), pointer: None, retry_after: None, cause: None }))
    }

    /// Creates an [`ErrorKind::Invalid`] error at this JSON pointer (RFC 6901); `""` is the whole document.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, message);
        error.0.pointer = Some(pointer.into());
        error
    }

    /// The error for an operation whose credential is not stored.
    pub(crate) fn credentials_needed() -> Self {
        Self::new(ErrorKind::CredentialsNeeded, "the destination's credentials are needed again")
    }

    /// Sets the underlying error, which is not part of the public message.
    #[must_use]
    pub fn with_source(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Sets how long the remote service asks to wait (`Retry-After`).
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Prepends `parent` to the pointer, for a document inside another one.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        let own = self.0.pointer.take().unwrap_or_default();
        self.0.pointer = Some(format!("{parent}{own}"));
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The public message, as printed by `Display`.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The JSON pointer (RFC 6901) of the property that is wrong.
    pub fn pointer(&self) -> Option<&str> {
        self.0.pointer.as_deref()
    }

    /// How long the remote service asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the message followed by those of all causes, separated by `: `, for a log or an operator. A cause that
    /// repeats the end of what precedes it is left out.
    ///
    /// The causes that this crate sets contain no secret, no path and no patient data. A host must see to it that those
    /// that it passes to [`with_source`](Self::with_source) do not either.
    ///
    /// ```
    /// use dicom_export::{Error, ErrorKind};
    ///
    /// let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let error = Error::new(ErrorKind::Unavailable, "the archive cannot be reached").with_source(cause);
    /// assert_eq!(error.report().to_string(), "the archive cannot be reached: connection refused");
    /// ```
    pub fn report(&self) -> impl fmt::Display + '_ {
        struct Report<'a>(&'a Error);
        impl fmt::Display for Report<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut report = self.0.to_string();
                let causes = iter::successors(self.0.source(), |cause| (*cause).source());
                for cause in causes.map(ToString::to_string) {
                    if !report.ends_with(&cause) {
                        report = format!("{report}: {cause}");
                    }
                }
                f.write_str(&report)
            }
        }
        Report(self)
    }
}

/// The position at which JSON cannot be read. `serde_json`'s message could quote the document, for example a path in a cursor.
#[cfg(any(feature = "postgres", feature = "redb", feature = "restate"))]
#[derive(Debug, thiserror::Error)]
#[error("invalid JSON at line {line}, column {column}")]
pub(crate) struct InvalidJson {
    line: usize,
    column: usize,
}

#[cfg(any(feature = "postgres", feature = "redb", feature = "restate"))]
impl From<serde_json::Error> for InvalidJson {
    fn from(cause: serde_json::Error) -> Self {
        Self { line: cause.line(), column: cause.column() }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lets hosts use `?` in implementations of the crate's traits. The message is a general one, because the message of an
/// I/O error may contain a path; the I/O error becomes the source.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let (kind, message) = match error.kind() {
            Io::NotFound => (ErrorKind::NotFound, "not found"),
            Io::AlreadyExists => (ErrorKind::Conflict, "already exists"),
            Io::PermissionDenied => (ErrorKind::Unreadable, "permission denied"),
            Io::InvalidData | Io::UnexpectedEof => {
                (ErrorKind::Unreadable, "the data is damaged or incomplete")
            }
            Io::Unsupported => (ErrorKind::Unsupported, "the operation is not supported"),
            _ => (ErrorKind::Unavailable, "an I/O operation has failed"),
        };
        Self::new(kind, message).with_source(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, pointer, retry_after, cause } = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", kind).field("message", message);
        if let Some(pointer) = pointer {
            out.field("pointer", pointer);
        }
        if let Some(wait) = retry_after {
            out.field("retry_after", wait);
        }
        if let Some(cause) = cause {
            out.field("source", cause);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }
}
