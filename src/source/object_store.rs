//! [`ObjectStoreSource`]: instances in a store of the crate `object_store`.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::iter;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::object_store::path::{Path, PathPart};
use ::object_store::signer::{Method, Signer};
use ::object_store::{Error as StoreError, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt};
use async_trait::async_trait;
use futures::stream::{BoxStream, TryStreamExt};

use crate::content::{Content, CopySource};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cursor, Instance, ListRequest, ListWarning, Locator, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};
use crate::source::InstanceSource;
use crate::sync::lock;

/// What a key ends in.
const SUFFIX: &str = ".dcm";

/// How many keys a page passes over at most before it says how far it has come.
const MOST_PASSED_OVER: u64 = 20_000;

/// How many listings are kept between their pages.
const LISTINGS: usize = 8;

const URL_VALIDITY: Duration = Duration::from_secs(3600);

/// Instances in any [`ObjectStore`], as the objects `<study>/<series>/<sop instance>.dcm`, optionally below a prefix:
/// the layout that exports leave under `<operation id>/results`, say.
///
/// # Listing
/// In the order of keys. A cursor is the last key; between two pages the listing is kept, so that each of the store's
/// own pages is asked for once. Of everything else below the prefix the number is a warning, `unidentifiedObject`.
/// Identifiers are listed by prefix, so they cost what lies under them, and a single instance one request.
///
/// The store has to list in the order of keys, compared as bytes, as Azure (without hierarchical namespaces), S3 and
/// Google do; with another one, a folder say, listing fails as [`Unsupported`](ErrorKind::Unsupported).
///
/// # Copies at the destination
/// With a [signer](Self::with_signer) every instance has a URL, made without a request, for a destination that
/// fetches it itself. The version that was listed is copied, or none.
///
/// ```no_run
/// # #[cfg(feature = "azure")] fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use dicom_export::ObjectStoreSource;
/// use dicom_export::object_store::azure::MicrosoftAzureBuilder;
///
/// let archive = MicrosoftAzureBuilder::new().with_account("archive").with_container_name("instances");
/// let archive = Arc::new(archive.with_credential_type("managed_identity").build()?);
/// let source = ObjectStoreSource::new(archive.clone()).with_signer(archive).with_prefix("dicom")?;
/// # Ok(()) }
/// ```
///
/// # Permissions
/// To list and to read; to sign, what the store asks for (on Azure an account key, or a token that may get a user
/// delegation key; a SAS cannot sign).
#[derive(Clone)]
pub struct ObjectStoreSource {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    signer: Option<Arc<dyn Signer>>,
    url_validity: Duration,
    listings: Arc<Mutex<Vec<Listing>>>,
}

impl ObjectStoreSource {
    /// Everything in a store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        let (prefix, listings) = (Path::default(), Arc::default());
        Self { store, prefix, signer: None, url_validity: URL_VALIDITY, listings }
    }

    /// Only what lies below this prefix, `a/b` say.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it holds an empty part, `.` or `..`, or a character that cannot stand in a
    /// key.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        // The store's error would quote it.
        let unusable = |_| Error::new(ErrorKind::Invalid, "the prefix is not one");
        self.prefix = Path::parse(prefix).map_err(unusable)?;
        self.listings = Arc::default();
        Ok(self)
    }

    /// Lets destinations fetch instances themselves, by URLs that this signs: the same store again, as a rule.
    ///
    /// It spares this process the bytes, down and up again, and most of the work on a large instance. A copy takes
    /// Azure two requests, though, where an instance up to 8 MiB is streamed in one: an archive of small instances
    /// beside a good network is exported more quickly without.
    pub fn with_signer(mut self, signer: Arc<dyn Signer>) -> Self {
        self.signer = Some(signer);
        self
    }

    /// How long a signed URL is good for. Default: an hour. A copy that takes longer is given up, and the instance
    /// streamed. Past two hours `object_store` asks Azure for a new user delegation key with every URL, where the
    /// credential is a token.
    pub fn url_validity(mut self, validity: Duration) -> Self {
        self.url_validity = validity;
        self
    }

    fn key(&self, instance: &InstanceIdentifier) -> Path {
        let (study, series) = (instance.study_instance_uid(), instance.series_instance_uid());
        let name = format!("{}{SUFFIX}", instance.sop_instance_uid());
        self.below([study.as_str(), series.as_str(), &name])
    }

    fn below<'a>(&'a self, parts: impl IntoIterator<Item = &'a str>) -> Path {
        self.prefix.parts().chain(parts.into_iter().map(PathPart::from)).collect()
    }

    fn identify(&self, key: &Path) -> Option<InstanceIdentifier> {
        let mut parts = key.prefix_match(&self.prefix)?;
        let (study, series, name) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let uid = |text: &str| Uid::new(text).ok();
        let sop = uid(name.as_ref().strip_suffix(SUFFIX)?)?;
        Some(InstanceIdentifier::new(uid(study.as_ref())?, uid(series.as_ref())?, sop))
    }

    fn instance(&self, meta: &ObjectMeta) -> Option<Instance> {
        let instance = Instance::new(self.identify(&meta.location)?).with_size(meta.size);
        Some(match &meta.e_tag {
            Some(etag) => instance.with_locator(Locator::new(etag.as_str())),
            None => instance,
        })
    }

    /// The one object of an instance.
    async fn single(&self, instance: &InstanceIdentifier, after: Option<&Path>) -> Result<Page> {
        let key = self.key(instance);
        if after.is_some_and(|after| *after >= key) {
            return Ok(Page::default());
        }
        match self.store.head(&key).await {
            Ok(meta) => Ok(Page::last(self.instance(&meta).into_iter().collect())),
            Err(StoreError::NotFound { .. }) => Ok(Page::default()),
            Err(error) => Err(list_error(error)),
        }
    }

    async fn many(&self, folder: Path, after: Option<Path>, limit: usize) -> Result<Page> {
        let mut listing = self.listing(folder, after);
        let (mut instances, mut passed_over) = (Vec::new(), 0);
        let ended = loop {
            if instances.len() == limit || passed_over == MOST_PASSED_OVER {
                break false;
            }
            let Some(meta) = listing.next().await? else { break true };
            match self.instance(&meta) {
                Some(instance) => instances.push(instance),
                None => passed_over += 1,
            }
        };
        let mut page = Page::last(instances);
        if passed_over > 0 {
            let message = "objects are not named as instances are";
            page = page.with_warnings(vec![ListWarning::new("unidentifiedObject", message, passed_over)]);
        }
        if !ended {
            page.next = listing.last.as_ref().map(|key| Cursor::new(key.as_ref()));
            self.keep(listing);
        }
        Ok(page)
    }

    /// The listing of a folder that goes on after this key: one that was kept, or a new one.
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
        if listings.len() == LISTINGS {
            listings.remove(0);
        }
        listings.push(listing);
    }
}

impl fmt::Debug for ObjectStoreSource {
    /// Without the store and the signer, some of which print their keys, and the prefix, which can hold names.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSource")
            .field("signs", &self.signer.is_some())
            .field("url_validity", &self.url_validity)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl InstanceSource for ObjectStoreSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let after = request.after.map(|cursor| Path::parse(cursor.as_str())).transpose();
        let after = after.map_err(|_| Error::new(ErrorKind::Internal, "a stored Cursor cannot be read"))?;
        let Scope::Identifier(scope) = request.scope else {
            return self.many(self.prefix.clone(), after, request.limit).await;
        };
        let (study, series) = (scope.study_instance_uid(), scope.series_instance_uid());
        match instance_of(scope) {
            Some(instance) => self.single(&instance, after.as_ref()).await,
            None => {
                let folder = self.below([Some(study), series].into_iter().flatten().map(Uid::as_str));
                self.many(folder, after, request.limit).await
            }
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let found = self.store.get_opts(&self.key(instance.identifier()), GetOptions::default()).await;
        let found = found.map_err(source_error)?;
        let length = found.meta.size;
        Ok(Content::from_stream(Some(length), found.into_stream().map_err(source_error)))
    }

    /// Nothing without a signer, for an instance that was listed without an ETag (another one could lie there by now,
    /// and be longer), and for an empty one.
    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let etag = Some(instance.locator().as_str()).filter(|etag| !etag.is_empty());
        let length = instance.size().filter(|length| *length > 0);
        let (Some(signer), Some(length), Some(etag)) = (&self.signer, length, etag) else { return Ok(None) };
        let key = self.key(instance.identifier());
        let url = signer.signed_url(Method::GET, &key, self.url_validity).await.map_err(source_error)?;
        Ok(Some(CopySource::new(url, length).with_etag(etag)))
    }
}

/// The listing of a folder, somewhere in its middle.
struct Listing {
    folder: Path,
    /// After what it was asked for.
    after: Option<Path>,
    /// The last key that came.
    last: Option<Path>,
    objects: BoxStream<'static, Result<ObjectMeta, StoreError>>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        loop {
            let Some(meta) = self.objects.try_next().await.map_err(list_error)? else { return Ok(None) };
            if self.last.as_ref().is_some_and(|last| meta.location <= *last) {
                let message = "the source's store does not list in the order of keys";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            self.last = Some(meta.location.clone());
            // Some stores begin where they like: Azure's emulator does not know the offset.
            if self.after.as_ref().is_none_or(|after| meta.location > *after) {
                return Ok(Some(meta));
            }
        }
    }
}

fn instance_of(scope: &DicomIdentifier) -> Option<InstanceIdentifier> {
    let (series, sop) = (scope.series_instance_uid()?, scope.sop_instance_uid()?);
    Some(InstanceIdentifier::new(scope.study_instance_uid().clone(), series.clone(), sop.clone()))
}

fn list_error(cause: StoreError) -> Error {
    match cause {
        StoreError::NotFound { .. } => Error::new(ErrorKind::NotFound, "the source's container is not there")
            .with_source(Fault::of(&cause)),
        cause => source_error(cause),
    }
}

/// What the store's error says, without its text.
fn source_error(cause: StoreError) -> Error {
    let (kind, message) = match &cause {
        StoreError::NotFound { .. } => (ErrorKind::NotFound, "the instance is gone"),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (ErrorKind::Unauthorized, "the source refuses the credential")
        }
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => (ErrorKind::Conflict, "the instance has changed meanwhile"),
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "the source cannot do that")
        }
        StoreError::InvalidPath { .. } => (ErrorKind::Invalid, "the source holds a key that cannot be read"),
        StoreError::UnknownConfigurationKey { .. } => (ErrorKind::Invalid, "the source's settings are wrong"),
        StoreError::JoinError { .. } => (ErrorKind::Internal, "a thread of the source's store stopped"),
        // The store's own retrying is over, if it was on.
        _ => (ErrorKind::Unavailable, "the source failed or does not answer"),
    };
    Error::new(kind, message).with_source(Fault::of(&cause))
}

/// What may be told of a store's error. Its own text holds the key and the folder, and so names, down to its last
/// cause; the system's errors hold none.
#[derive(Debug, thiserror::Error)]
#[error("the store's error is {what}")]
struct Fault {
    what: &'static str,
    #[source]
    system: Option<io::Error>,
}

impl Fault {
    fn of(cause: &StoreError) -> Self {
        let what = match cause {
            StoreError::NotFound { .. } => "NotFound",
            StoreError::InvalidPath { .. } => "InvalidPath",
            StoreError::JoinError { .. } => "JoinError",
            StoreError::NotSupported { .. } => "NotSupported",
            StoreError::AlreadyExists { .. } => "AlreadyExists",
            StoreError::Precondition { .. } => "Precondition",
            StoreError::NotModified { .. } => "NotModified",
            StoreError::NotImplemented { .. } => "NotImplemented",
            StoreError::PermissionDenied { .. } => "PermissionDenied",
            StoreError::Unauthenticated { .. } => "Unauthenticated",
            StoreError::UnknownConfigurationKey { .. } => "UnknownConfigurationKey",
            _ => "Generic",
        };
        let chain = iter::successors(Some(cause as &(dyn StdError + 'static)), |error| (*error).source());
        let system = chain.filter_map(|error| error.downcast_ref::<io::Error>()).last();
        let system = system.map(|error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        });
        Self { what, system }
    }
}
