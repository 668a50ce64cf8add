//! What can go wrong: one opaque [`Error`] whose [`ErrorKind`] says what happened, never what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// The result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn StdError + Send + Sync>;

/// What happened. The engine alone decides what is retried, skipped or fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// It is not there: an instance that is gone, a container that does not exist, an unknown operation.
    NotFound,
    /// It is there, and its bytes cannot be had: damaged, refused, shorter than it said.
    Unreadable,
    /// The other side asks for fewer requests (429, 503 with `Retry-After`).
    Throttled,
    /// The other side cannot be reached, or failed for reasons of its own; the same call may pass later.
    Unavailable,
    /// The credential is missing, refused or expired.
    Unauthorized,
    /// An operation's credential is not kept any more: it goes on once it is resumed with a destination.
    CredentialsNeeded,
    /// The input is wrong; [`Error::pointer`] names the property when there is one.
    Invalid,
    /// The state does not allow it: it exists already, it changed meanwhile, somebody else holds it.
    Conflict,
    /// It is well-formed and nothing here can do it.
    Unsupported,
    /// A fault of the implementation: its own or a host's.
    Internal,
}

impl ErrorKind {
    /// The name as it stands in a status document's `error.code`: camelCase.
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
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// Whether the same call may pass later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable)
    }
}

/// An error of a source, a sink, a store or the engine.
///
/// Its [`Display`](fmt::Display) is the **public message**: it goes into `errors.log`, status documents and
/// HTTP answers, so it holds no secret, no patient data and no path. What lies beneath is in
/// [`source()`](StdError::source) and is printed once, by whoever walks the chain.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    pointer: Option<String>,
    retry_after: Option<Duration>,
    cause: Option<Cause>,
}

impl Error {
    /// An error of this kind with this public message.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), pointer: None, retry_after: None, cause: None }))
    }

    /// Wrong input, at this JSON pointer (RFC 6901); the document itself is `""`.
    pub fn invalid(pointer: impl Into<String>, message: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(ErrorKind::Invalid, message);
        error.0.pointer = Some(pointer.into());
        error
    }

    /// A stored operation's destination needs a credential that is not available.
    pub(crate) fn credentials_needed() -> Self {
        Self::new(ErrorKind::CredentialsNeeded, "the destination's credentials are needed again")
    }

    /// Adds what lies beneath. It is never part of the public message.
    pub fn with_source(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds how long the other side asked to be left alone (`Retry-After`).
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Puts a parent's pointer before this error's own, for a document inside another.
    pub fn under(mut self, parent: &str) -> Self {
        let own = self.0.pointer.take().unwrap_or_default();
        self.0.pointer = Some(format!("{parent}{own}"));
        self
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The public message, the same that `Display` prints.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The JSON pointer (RFC 6901) of the property that is wrong.
    pub fn pointer(&self) -> Option<&str> {
        self.0.pointer.as_deref()
    }

    /// How long the other side asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
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
