//! [`IdentityCheck`]: whether an instance is the one it is listed as.

use futures::stream::{self, StreamExt};

use crate::content::Content;
use crate::content::head::{Value, read_uids};
use crate::engine::ExportEngineBuilder;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{InstanceIdentifier, Uid};

/// How much of an instance is looked at, at most.
const HEAD: usize = 256 << 10;

/// Whether the identifier that the source lists an instance under is compared with what the instance says of itself.
///
/// Its Media Storage SOP Instance UID (PS3.10 7.1) and the Study, Series and SOP Instance UIDs of its data set are
/// compared, without trailing padding (PS3.5 9.1). Only the head is read, up to the last of these and never beyond
/// 256 KiB; nothing is changed and nothing waits for the rest. What the head does not give is not compared: the data
/// set of a private transfer syntax, one that cannot be parsed, or one whose UIDs come later than that.
///
/// While it is on, nothing is copied at the destination: a copy's bytes do not come by here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdentityCheck {
    /// Nothing is compared. The default: the source is the authority on what it holds, some sources read the very same
    /// UIDs to list an instance, and instances that could be copied at the destination would be streamed.
    #[default]
    Off,
    /// An instance that says it is another is exported, and counted by the warning `identityMismatch`.
    Warn,
    /// Such an instance is skipped, and `errors.log` names the UIDs that differ.
    Enforce,
}

impl ExportEngineBuilder {
    /// Whether an instance is compared with the identifier that it is listed under. Default: [`IdentityCheck::Off`].
    /// It costs microseconds an instance: over 4,000 CT slices less than the noise.
    pub fn identity_check(mut self, check: IdentityCheck) -> Self {
        self.options.checks.head = match check {
            IdentityCheck::Off => None,
            IdentityCheck::Warn => Some(HeadCheck { enforced: false }),
            IdentityCheck::Enforce => Some(HeadCheck { enforced: true }),
        };
        self
    }
}

/// The check while it is on.
#[derive(Debug, Clone)]
pub(crate) struct HeadCheck {
    /// Whether an instance that fails it is skipped.
    enforced: bool,
}

/// What the beginning of an instance tells.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Passed,
    /// More of it is needed.
    Undecided,
    /// The UIDs that differ.
    Differs(String),
}

impl HeadCheck {
    /// Reads as much of a content as it takes, and gives the content back as it was, with the UIDs that differ.
    ///
    /// # Errors
    /// Those that skip the instance.
    pub(crate) async fn look(
        &self,
        listed: &InstanceIdentifier,
        content: Content,
    ) -> Result<(Content, Option<String>)> {
        let (content, finding) = match content.as_bytes() {
            Some(bytes) => {
                let finding = judge(listed, &bytes[..bytes.len().min(HEAD)]);
                (content, finding)
            }
            None => look_at_stream(listed, content).await,
        };
        match finding {
            Finding::Differs(what) if self.enforced => {
                let message = format!("the instance is not the one that it is listed as, by its {what}");
                Err(Error::new(ErrorKind::Unreadable, message))
            }
            Finding::Differs(what) => Ok((content, Some(what))),
            Finding::Passed | Finding::Undecided => Ok((content, None)),
        }
    }
}

async fn look_at_stream(listed: &InstanceIdentifier, content: Content) -> (Content, Finding) {
    let length = content.length();
    let mut rest = content.into_stream();
    let (mut read, mut head, mut judged) = (Vec::new(), Vec::new(), 0);
    let mut finding = Finding::Undecided;
    let mut ended = false;
    while finding == Finding::Undecided && head.len() < HEAD && !ended {
        let chunk = rest.next().await;
        match &chunk {
            Some(Ok(chunk)) => head.extend_from_slice(&chunk[..chunk.len().min(HEAD - head.len())]),
            _ => ended = true,
        }
        read.extend(chunk);
        // Each time from the start, so not after every small chunk.
        if head.len() >= (2 * judged).max(1) || head.len() == HEAD || ended && head.len() > judged {
            judged = head.len();
            finding = judge(listed, &head);
        }
    }
    // An error is the last of what was read: whoever reads on meets with it where it was.
    (Content::from_stream(length, stream::iter(read).chain(rest)), finding)
}

fn judge(listed: &InstanceIdentifier, head: &[u8]) -> Finding {
    let (uids, would_give_more) = read_uids(head);
    let differs = |value: &Value, listed: &Uid| match value {
        Value::Absent => false,
        Value::Uid(uid) => uid != listed,
        Value::NoUid => true,
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
        false => Finding::Differs(differing.join(", ")),
        true if would_give_more => Finding::Undecided,
        true => Finding::Passed,
    }
}
