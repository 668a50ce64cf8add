//! [`ObjectLayout`]: how the objects of a store are found.

use std::fmt;
use std::sync::Arc;

use ::object_store::path::Path;

use super::template::KeyTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::object_store_prefix::parse_key;

/// How the objects of a store are found that contain instances: by their keys, or in an index.
///
/// # Keys
/// A template has the placeholders `{study}`, `{series}` and `{instance}`, which stand for UIDs. Each occurs once, in any order.
///
/// ```
/// use dicom_export::source::ObjectLayout;
///
/// let layout = ObjectLayout::template("studies/{study}/series/{series}/instances/{instance}")?;
/// let error = ObjectLayout::template("{study}/{instance}.dcm").unwrap_err();
/// assert_eq!(error.message(), "the template must contain {study}, {series} and {instance} once each");
/// # Ok::<_, dicom_export::Error>(())
/// ```
///
/// # Index
/// If the keys do not contain the UIDs, the UIDs are in an index, an object in the same store. It consists of JSON Lines, one
/// for each instance, in any order:
///
/// ```json
/// {"identifier":"1.2.3/1.2.3.1/1.2.3.1.1","path":"2024/05/IM000001","size":526336,"etag":"\"9a0364b9\""}
/// ```
///
/// | member | what it is |
/// | --- | --- |
/// | `identifier` | the three UIDs: `<study>/<series>/<SOP instance>` |
/// | `path` | the key of the object below the source's prefix |
/// | `size` | the length of the object in bytes, as a number or a string; optional |
/// | `etag` | the ETag of the object; optional. Destinations copy instances from signed URLs only with an ETag and a size |
///
/// Other members are ignored, so that the `manifest.jsonl` of an export is an index of what it has exported. If several lines
/// name the same instance, the last one counts. Databases export JSON Lines, and each line can be read on its own, which is not
/// so with CSV, whose quoted fields may contain line breaks.
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::object_store::{ObjectStoreExt, memory::InMemory};
/// use dicom_export::source::{ListRequest, ObjectLayout, Scope};
/// use dicom_export::{InstanceSource, ObjectStoreSource};
/// # tokio::runtime::Runtime::new()?.block_on(async {
///
/// let store = Arc::new(InMemory::new());
/// store.put(&"2024/05/IM000001".into(), "bytes of a file".into()).await?;
/// let index = r#"{"identifier":"1.2.3/1.2.3.1/1.2.3.1.1","path":"2024/05/IM000001"}"#;
/// store.put(&"index.jsonl".into(), index.into()).await?;
///
/// let source = ObjectStoreSource::new(store).with_layout(ObjectLayout::index("index.jsonl")?);
/// let page = source.list(ListRequest::new(Scope::Everything, None, 100)).await?;
/// assert_eq!(page.instances[0].identifier().to_string(), "1.2.3/1.2.3.1/1.2.3.1.1");
/// assert_eq!(source.open(&page.instances[0]).await?.length(), Some(15));
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// Default: the template that exports write, `{study}/{series}/{instance}.dcm`.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectLayout(pub(super) Layout);

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Layout {
    Template(Arc<KeyTemplate>),
    /// The key of the index below the prefix of the source.
    Index(Path),
}

impl Default for ObjectLayout {
    fn default() -> Self {
        Self(Layout::Template(Arc::default()))
    }
}

impl ObjectLayout {
    /// Creates a layout from a template.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if a placeholder is missing, repeated or unknown, if two of them are adjacent or
    /// separated by digits and dots only, or if the template is not a key: it has an empty segment, `.` or `..`.
    pub fn template(template: &str) -> Result<Self> {
        Ok(Self(Layout::Template(Arc::new(KeyTemplate::parse(template)?))))
    }

    /// Creates a layout from the key of an index below the source's prefix.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the text is not a key.
    pub fn index(key: &str) -> Result<Self> {
        let not_a_key = || Error::new(ErrorKind::Invalid, "the key of the index is not valid");
        Ok(Self(Layout::Index(parse_key(key).ok_or_else(not_a_key)?)))
    }
}

impl fmt::Debug for ObjectLayout {
    /// Omits the key of an index, which can contain names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Layout::Template(template) => f.debug_tuple("ObjectLayout").field(template).finish(),
            Layout::Index(_) => f.debug_tuple("ObjectLayout").field(&"index").finish(),
        }
    }
}
