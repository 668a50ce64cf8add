//! [`ObjectStoreSource`]: exports from any store of the crate `object_store`.

mod error;
#[cfg(feature = "gcs")]
mod gcs;
mod index;
mod layout;
mod listing;
#[cfg(feature = "s3")]
mod s3;
mod template;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::object_store::path::Path;
use ::object_store::signer::{Method, Signer};
use ::object_store::{Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use async_trait::async_trait;
use futures::stream::TryStreamExt;

use self::error::{list_error, source_error};
use self::index::{IndexedObject, ObjectIndex};
use self::layout::Layout;
pub use self::layout::ObjectLayout;
use self::listing::Listing;
use self::template::{Key, KeyTemplate};
use crate::content::{Content, CopySource};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Locator, Page, Scope};
use crate::model::{DicomIdentifier, ExportSource, InstanceIdentifier};
use crate::object_store_prefix::parse_key;
use crate::source::InstanceSource;
use crate::sync::lock;

/// The number of other keys after which a page ends, so that the cursor moves.
const MAX_OTHER_KEYS: u64 = 20_000;

/// How many listings are kept between two pages.
const MAX_LISTINGS: usize = 8;

const URL_VALIDITY: Duration = Duration::from_secs(3600);

/// Instances in any [`ObjectStore`], as the objects `<study>/<series>/<sop instance>.dcm`, optionally below a prefix.
/// This is the layout that exports write under `<operation id>/results`; [`with_layout`](Self::with_layout) sets another.
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::object_store::{ObjectStoreExt, memory::InMemory};
/// use dicom_export::source::{ListRequest, Scope};
/// use dicom_export::{InstanceSource, ObjectStoreSource};
/// # tokio::runtime::Runtime::new()?.block_on(async {
///
/// let store = Arc::new(InMemory::new());
/// store.put(&"dicom/1.2.3/1.2.3.1/1.2.3.1.1.dcm".into(), "bytes of a file".into()).await?;
/// let source = ObjectStoreSource::new(store).with_prefix("dicom")?;
/// let page = source.list(ListRequest::new(Scope::Everything, None, 100)).await?;
/// assert_eq!(page.instances[0].identifier().to_string(), "1.2.3/1.2.3.1/1.2.3.1.1");
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Listing
/// Objects are listed in the order of their keys. A cursor is the last key. The source keeps a listing between two pages,
/// so that each page of the store is requested once. An object whose key has the form of the layout, but not three valid UIDs,
/// is a failure of the listing: it is skipped and logged. The warning `unidentifiedObject` counts the other objects below the
/// prefix. An identifier is listed by the part of its keys that is known, up to a `/`; a single instance takes one request.
///
/// Objects may be added and deleted between two pages; the others are listed once. A key with an empty segment, `.`, `..`
/// or a control character ends the listing with an error, since `object_store` cannot return it.
///
/// The store must list in the order of keys, compared as bytes, as Azure (without hierarchical namespaces), S3 and Google
/// Cloud Storage do. With other stores, such as a local folder, listing fails with
/// [`Unsupported`](ErrorKind::Unsupported).
///
/// # Listing with an index
/// With [`ObjectLayout::index`], the index is read into a temporary file of about 400 bytes a line, in constant memory, and
/// instances are listed in the order of their UIDs. A new listing reads an index again that has changed; one that is in
/// progress continues with the index that it began with. A line that cannot be read is a failure of the listing, with its number
/// in the message. Warnings count lines that a later line replaces (`duplicateInstance`), an index that has changed since the
/// page before (`listChanged`), and, when identifiers are listed, broken lines that may belong to them (`unidentifiedLine`). For
/// exports of identifiers, a change of the index is found within 30 seconds.
///
/// # Copies at the destination
/// With a [signer](Self::with_signer) the source signs a URL for each instance, without a request, from which the
/// destination copies it. Only the version that was listed is copied.
///
/// ```no_run
/// # #[cfg(feature = "azure")] fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use dicom_export::ObjectStoreSource;
/// use dicom_export::object_store::RetryConfig;
/// use dicom_export::object_store::azure::MicrosoftAzureBuilder;
///
/// let archive = MicrosoftAzureBuilder::new().with_account("archive").with_container_name("instances");
/// // The engine retries, and adapts its concurrency to the failures that it sees.
/// let archive = archive.with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
/// let archive = Arc::new(archive.with_credential_type("managed_identity").build()?);
/// let source = ObjectStoreSource::new(archive.clone()).with_signer(archive).with_prefix("dicom")?;
/// # Ok(()) }
/// ```
///
/// # Permissions
/// List and read. Signing requires on Azure an account key, or a token with permission to get a user delegation key; a
/// SAS cannot sign.
#[derive(Clone)]
pub struct ObjectStoreSource {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    template: Arc<KeyTemplate>,
    /// The index, if the keys do not name the instances.
    index: Option<Arc<ObjectIndex>>,
    signer: Option<Arc<dyn Signer>>,
    /// The signer of a store that the source opened.
    own_signer: Option<Arc<dyn Signer>>,
    url_validity: Duration,
    listings: Arc<Mutex<Vec<Listing>>>,
}

impl ObjectStoreSource {
    /// Creates a source for all instances of a store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let (prefix, listings) = (Path::default(), Arc::default());
        let (template, index) = (Arc::default(), None);
        let (signer, own_signer, url_validity) = (None, None, URL_VALIDITY);
        Self { store, prefix, template, index, signer, own_signer, url_validity, listings }
    }

    /// Restricts the source to the keys below a prefix such as `a/b`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the prefix contains an empty segment, `.`, `..`, or a character that is not
    /// allowed in a key.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        // The store's error quotes the prefix.
        let unusable = |_| Error::new(ErrorKind::Invalid, "the prefix is not valid");
        self.prefix = Path::parse(prefix).map_err(unusable)?;
        self.index = self.index.map(|index| Arc::new(ObjectIndex::new(index.path.clone())));
        self.listings = Arc::default();
        Ok(self)
    }

    /// Lets destinations copy instances from URLs that `signer` signs; usually it is the same store.
    ///
    /// The bytes then do not pass through this process, which saves most of the work for large instances. On Azure a copy
    /// takes two requests, while an instance of up to 8 MiB is streamed in one: small instances on a fast network are
    /// exported faster without a signer.
    #[must_use]
    pub fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// Lets destinations copy instances from URLs that the store signs, if the source opened the store itself. Default: instances
    /// are streamed.
    #[must_use]
    pub fn with_signed_urls(mut self) -> Self {
        self.signer = self.own_signer.clone().or(self.signer);
        self
    }

    /// Sets how instances are found below the prefix: by a template of their keys, or in an index. Default:
    /// `{study}/{series}/{instance}.dcm`.
    #[must_use]
    pub fn with_layout(mut self, layout: ObjectLayout) -> Self {
        (self.template, self.index) = match layout.0 {
            Layout::Template(template) => (template, None),
            Layout::Index(path) => (Arc::default(), Some(Arc::new(ObjectIndex::new(path)))),
        };
        self.listings = Arc::default();
        self
    }

    /// Sets how long a signed URL is valid. Default: one hour. If a copy takes longer, the instance is streamed instead.
    ///
    /// With a validity above two hours and a token as the credential, `object_store` requests a new user delegation key
    /// from Azure for every URL.
    #[must_use]
    pub fn url_validity(mut self, validity: Duration) -> Self {
        self.url_validity = validity;
        self
    }

    fn key(&self, instance: &InstanceIdentifier) -> Path {
        self.below(&Path::from(self.template.key(instance)))
    }

    fn below(&self, path: &Path) -> Path {
        self.prefix.parts().chain(path.parts()).collect()
    }

    /// The key of a listed instance, and its ETag.
    fn locate(&self, instance: &Instance) -> Result<(Path, Option<String>)> {
        let locator = instance.locator();
        if self.index.is_none() {
            let etag = Some(locator.as_str()).filter(|etag| !etag.is_empty());
            return Ok((self.key(instance.identifier()), etag.map(str::to_owned)));
        }
        let IndexedObject { path, etag } = locator.decode()?;
        let unusable = || Error::new(ErrorKind::Internal, "a stored Locator cannot be read");
        Ok((self.below(&parse_key(&path).ok_or_else(unusable)?), etag))
    }

    fn identify(&self, meta: &ObjectMeta) -> Object {
        let key = meta.location.as_ref();
        let key = match self.prefix.as_ref() {
            "" => Some(key),
            prefix => key.strip_prefix(prefix).and_then(|key| key.strip_prefix('/')),
        };
        match key.map_or(Key::Other, |key| self.template.identify(key)) {
            Key::Instance(identifier) => {
                let instance = Instance::new(identifier).with_size(meta.size);
                Object::Instance(match &meta.e_tag {
                    Some(etag) => instance.with_locator(Locator::new(etag.as_str())),
                    None => instance,
                })
            }
            Key::Invalid(known) => Object::Invalid(ListFailure::new(
                known,
                "an object's key does not consist of three valid UIDs",
            )),
            Key::Other => Object::Other,
        }
    }

    /// Lists the object of a single instance.
    async fn list_single(&self, instance: &InstanceIdentifier, after: Option<&Path>) -> Result<Page> {
        let key = self.key(instance);
        if after.is_some_and(|after| *after >= key) {
            return Ok(Page::default());
        }
        match self.store.head(&key).await {
            Ok(meta) => Ok(match self.identify(&meta) {
                Object::Instance(instance) => Page::last(vec![instance]),
                Object::Invalid(_) | Object::Other => Page::default(),
            }),
            Err(StoreError::NotFound { .. }) => Ok(Page::default()),
            Err(error) => Err(list_error(error)),
        }
    }

    /// Lists the instances of an identifier, or of the whole source.
    async fn list_folder(
        &self,
        scope: Option<&DicomIdentifier>,
        after: Option<Path>,
        limit: usize,
    ) -> Result<Page> {
        let folder = scope.map_or_else(
            || self.prefix.clone(),
            |scope| self.below(&Path::from(self.template.folder(scope))),
        );
        // A folder may contain the instances of other identifiers, if the layout does not begin with the study.
        let is_listed = |instance: &Instance| scope.is_none_or(|scope| scope.covers(instance.identifier()));
        let mut listing = self.listing(folder, after);
        let (mut instances, mut failures) = (Vec::new(), Vec::new());
        let (mut other_keys, mut passed_over) = (0, 0);
        let ended = loop {
            if instances.len() + failures.len() == limit || other_keys + passed_over == MAX_OTHER_KEYS {
                break false;
            }
            let Some(meta) = listing.next().await? else { break true };
            match self.identify(&meta) {
                Object::Instance(instance) if is_listed(&instance) => instances.push(instance),
                Object::Instance(_) => passed_over += 1,
                Object::Invalid(failure) => failures.push(failure),
                Object::Other => other_keys += 1,
            }
        };
        let mut page = Page::last(instances).with_failures(failures);
        if other_keys > 0 {
            let message = "objects do not have the name of an instance";
            page = page.with_warnings(vec![ListWarning::new("unidentifiedObject", message, other_keys)]);
        }
        if !ended {
            page.next = listing.last.as_ref().map(|key| Cursor::new(key.as_ref()));
            self.keep(listing);
        }
        Ok(page)
    }

    /// Returns the kept listing that continues after this key, or a new one.
    fn listing(&self, folder: Path, after: Option<Path>) -> Listing {
        let mut listings = lock(&self.listings);
        let kept = listings.iter().position(|kept| kept.folder == folder && kept.last == after);
        if let Some(kept) = kept.filter(|_| after.is_some()) {
            return listings.swap_remove(kept);
        }
        drop(listings);
        let prefix = (!folder.is_root()).then_some(&folder);
        let objects = match &after {
            Some(after) => self.store.list_with_offset(prefix, after),
            None => self.store.list(prefix),
        };
        Listing { folder, after, last: None, objects }
    }

    fn keep(&self, listing: Listing) {
        let mut listings = lock(&self.listings);
        if listings.len() == MAX_LISTINGS {
            listings.remove(0);
        }
        listings.push(listing);
    }
}

impl fmt::Debug for ObjectStoreSource {
    /// Omits the store and the signer, some of which print their keys, and the prefix, which can contain names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSource")
            .field("template", &self.template)
            .field("has_index", &self.index.is_some())
            .field("signs", &self.signer.is_some())
            .field("url_validity", &self.url_validity)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceSource for ObjectStoreSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        if let Some(index) = &self.index {
            return index.list(&self.store, &self.below(&index.path), request).await;
        }
        let after = request.after.map(|cursor| Path::parse(cursor.as_str())).transpose();
        let after = after.map_err(|_| Error::new(ErrorKind::Internal, "a stored Cursor cannot be read"))?;
        let Scope::Identifier(scope) = request.scope else {
            return self.list_folder(None, after, request.limit).await;
        };
        match single_instance(scope) {
            Some(instance) => self.list_single(&instance, after.as_ref()).await,
            None => self.list_folder(Some(scope), after, request.limit).await,
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let (key, _) = self.locate(instance)?;
        let found = self.store.get_opts(&key, GetOptions::default()).await;
        let found = found.map_err(source_error)?;
        let length = found.meta.size;
        Ok(Content::from_stream(Some(length), found.into_stream().map_err(source_error)))
    }

    /// Returns `None` without a signer, for an empty instance, and for one that was listed without an ETag, since a longer
    /// version may have replaced it.
    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let (key, etag) = self.locate(instance)?;
        let length = instance.size().filter(|length| *length > 0);
        let (Some(signer), Some(length), Some(etag)) = (&self.signer, length, etag) else { return Ok(None) };
        let url = signer.signed_url(Method::GET, &key, self.url_validity).await.map_err(source_error)?;
        Ok(Some(CopySource::new(url, length).with_etag(etag)))
    }

    /// Returns the number of instances in the index, or `None` without an index.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        match (source, &self.index) {
            (ExportSource::Everything, Some(index)) => {
                index.count(&self.store, &self.below(&index.path)).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What an object is according to its key.
enum Object {
    Instance(Instance),
    /// The key has the form of an instance's, and not three valid UIDs.
    Invalid(ListFailure),
    Other,
}

fn single_instance(scope: &DicomIdentifier) -> Option<InstanceIdentifier> {
    let (series, sop) = (scope.series_instance_uid()?, scope.sop_instance_uid()?);
    Some(InstanceIdentifier::new(scope.study_instance_uid().clone(), series.clone(), sop.clone()))
}
