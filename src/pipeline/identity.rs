//! [`IdentityCheck`]: compares an instance's UIDs with the listed ones.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};

use crate::content::Content;
use crate::content::head::{UidValue, read_prefix};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{InstanceIdentifier, Uid};
use crate::pipeline::verify::ContentCheck;

/// How many bytes of an instance are examined at most.
const MAX_HEAD: usize = 256 << 10;

/// Whether an instance's UIDs are compared with the identifier under which the source lists it.
///
/// The Media Storage SOP Instance UID (PS3.10 7.1) and the Study, Series and SOP Instance UIDs of the data set are
/// compared, without trailing padding (PS3.5 9.1). Only the start of the instance is read, up to the last of these
/// elements and at most 256 KiB; the bytes are passed on unchanged and without delay. UIDs that cannot be read are not
/// compared: those of a data set that cannot be parsed, or beyond that limit.
///
/// While it is on, nothing is copied at the destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdentityCheck {
    /// Nothing is compared. The default: the source is the authority on its contents, some sources read the same UIDs
    /// when they list an instance, and instances that could be copied at the destination would be streamed.
    #[default]
    Off,
    /// An instance whose UIDs differ is exported, and counted by the warning `identityMismatch`.
    Warn,
    /// An instance whose UIDs differ is skipped, and `errors.log` names the elements that differ.
    Enforce,
}

impl IdentityCheck {
    /// Returns the check for the pipeline, or `None` if it is off.
    pub(crate) fn into_content_check(self) -> Option<Arc<dyn ContentCheck>> {
        match self {
            Self::Off => None,
            Self::Warn => Some(Arc::new(IdentityVerifier { enforce: false })),
            Self::Enforce => Some(Arc::new(IdentityVerifier { enforce: true })),
        }
    }
}

#[derive(Debug)]
struct IdentityVerifier {
    /// Whether an instance whose UIDs differ is skipped.
    enforce: bool,
}

/// The result of comparing the start of an instance.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    /// More bytes are needed.
    Undecided,
    /// The names of the UIDs that differ.
    Different(String),
}

#[async_trait]
impl ContentCheck for IdentityVerifier {
    async fn check(
        &self,
        listed: &InstanceIdentifier,
        content: Content,
    ) -> Result<(Content, Option<String>)> {
        let (content, comparison) = match content.as_bytes() {
            Some(bytes) => {
                let comparison = compare(listed, &bytes[..bytes.len().min(MAX_HEAD)]);
                (content, comparison)
            }
            None => compare_stream(listed, content).await,
        };
        match comparison {
            Comparison::Different(what) if self.enforce => {
                let message = format!("the instance's {what} differs from the listed one");
                Err(Error::new(ErrorKind::Unreadable, message))
            }
            Comparison::Different(what) => Ok((content, Some(what))),
            Comparison::Equal | Comparison::Undecided => Ok((content, None)),
        }
    }
}

async fn compare_stream(listed: &InstanceIdentifier, content: Content) -> (Content, Comparison) {
    let length = content.length();
    let mut rest = content.into_stream();
    let (mut read, mut head, mut compared) = (Vec::new(), Vec::new(), 0);
    let mut comparison = Comparison::Undecided;
    let mut ended = false;
    while comparison == Comparison::Undecided && head.len() < MAX_HEAD && !ended {
        let chunk = rest.next().await;
        match &chunk {
            Some(Ok(chunk)) => head.extend_from_slice(&chunk[..chunk.len().min(MAX_HEAD - head.len())]),
            _ => ended = true,
        }
        read.extend(chunk);
        // Each comparison starts from the first byte, so it is not repeated after every small chunk.
        if head.len() >= (2 * compared).max(1) || head.len() == MAX_HEAD || ended && head.len() > compared {
            compared = head.len();
            comparison = compare(listed, &head);
        }
    }
    // If the source failed, the error is the last item read, so the reader of the content receives it in place.
    (Content::from_stream(length, stream::iter(read).chain(rest)), comparison)
}

fn compare(listed: &InstanceIdentifier, head: &[u8]) -> Comparison {
    let (uids, would_give_more) = read_prefix(head);
    let differs = |value: &UidValue, listed: &Uid| match value {
        UidValue::Absent => false,
        UidValue::Uid(uid) => uid != listed,
        UidValue::Invalid => true,
    };
    let sop = listed.sop_instance_uid();
    let differing: Vec<_> = [
        (&uids.study, listed.study_instance_uid(), "Study Instance UID"),
        (&uids.series, listed.series_instance_uid(), "Series Instance UID"),
        (&uids.sop_instance, sop, "SOP Instance UID"),
        (&uids.media_storage, sop, "Media Storage SOP Instance UID"),
    ]
    .into_iter()
    .filter_map(|(value, listed, name)| differs(value, listed).then_some(name))
    .collect();
    match differing.is_empty() {
        false => Comparison::Different(differing.join(", ")),
        true if would_give_more => Comparison::Undecided,
        true => Comparison::Equal,
    }
}
