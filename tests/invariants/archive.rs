//! A random source: pages of any length, some of them empty, contents in every form, and entries that cannot be listed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{
    CopySource, Cursor, Instance, InstanceSource, ListFailure, ListRequest, ListWarning, Page, Scope,
};
use dicom_export::{Content, DicomIdentifier, Error, ErrorKind, ExportSource, InstanceIdentifier, Result};
use fastrand::Rng;
use futures::StreamExt;

/// The prefix of signed URLs.
pub(crate) const URL: &str = "https://source.example/";

pub(crate) struct Archive {
    pub(crate) items: BTreeMap<InstanceIdentifier, Item>,
    /// Determines the lengths of pages, together with their cursors.
    pub(crate) paging: u64,
    /// Whether instances have URLs.
    pub(crate) copies: bool,
    pub(crate) open: Arc<Open>,
}

pub(crate) enum Item {
    Instance(Held),
    /// An entry that cannot be listed.
    Failure,
}

pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    form: Form,
    states_size: bool,
    /// Set if it can never be read.
    pub(crate) bad: Option<ErrorKind>,
}

enum Form {
    Whole,
    /// In chunks.
    Pieces {
        states_length: bool,
        of: usize,
    },
}

/// Counts the bytes of chunked contents that are open at once, each content with at most the budget.
#[derive(Default)]
pub(crate) struct Open {
    pub(crate) budget: u64,
    now: AtomicU64,
    pub(crate) most: AtomicU64,
}

struct Booked(Arc<Open>, u64);

impl Booked {
    fn new(open: &Arc<Open>, bytes: u64) -> Self {
        let bytes = bytes.min(open.budget);
        let now = open.now.fetch_add(bytes, SeqCst) + bytes;
        open.most.fetch_max(now, SeqCst);
        Self(Arc::clone(open), bytes)
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        self.0.now.fetch_sub(self.1, SeqCst);
    }
}

impl Archive {
    pub(crate) fn random(rng: &mut Rng, budget: u64) -> Self {
        let count = [0, 1, 5, 30, 120][rng.usize(..5)];
        let (bad, failures) = ([0.0, 0.0, 0.1][rng.usize(..3)], [0.0, 0.0, 0.1][rng.usize(..3)]);
        let (studies, series) = (rng.usize(1..8), rng.usize(1..4));
        let mut items = BTreeMap::new();
        for n in 0..count {
            let (study, series) = (rng.usize(..studies), rng.usize(..series));
            let id = format!("1.2.{study}/1.2.{study}.{series}/1.2.{study}.{series}.{n}").parse().unwrap();
            let item = match rng.f64() < failures {
                true => Item::Failure,
                false => Item::Instance(Held::random(rng, n, bad)),
            };
            items.insert(id, item);
        }
        let open = Arc::new(Open { budget, ..Open::default() });
        Self { items, paging: rng.u64(..), copies: rng.u8(..4) == 0, open }
    }

    /// What lies under what is asked for.
    pub(crate) fn covered(&self, wanted: &ExportSource) -> BTreeMap<&InstanceIdentifier, &Item> {
        let covers = |id: &InstanceIdentifier| match wanted {
            ExportSource::Identifiers(wanted) => wanted.iter().any(|wanted| wanted.covers(id)),
            _ => true,
        };
        self.items.iter().filter(|(id, _)| covers(id)).collect()
    }

    /// Identifiers under which nothing lies.
    pub(crate) fn unmatched(&self, wanted: &ExportSource) -> Vec<DicomIdentifier> {
        match wanted {
            ExportSource::Identifiers(wanted) => {
                let nothing = |wanted: &DicomIdentifier| !self.items.keys().any(|id| wanted.covers(id));
                wanted.iter().filter(nothing).collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn held(&self, id: &InstanceIdentifier) -> Option<&Held> {
        match self.items.get(id) {
            Some(Item::Instance(held)) => Some(held),
            _ => None,
        }
    }
}

impl Held {
    fn random(rng: &mut Rng, n: usize, bad: f64) -> Self {
        let length = match rng.u8(..10) {
            0 => 0,
            1 => rng.usize(10_000..100_000),
            _ => rng.usize(1..3_000),
        };
        let bytes = (0..length).map(|at| (at * 31 + n * 7) as u8 ^ (at >> 8) as u8).collect();
        let form = match rng.u8(..3) {
            0 => Form::Whole,
            _ => Form::Pieces { states_length: rng.bool(), of: rng.usize(1..2_000) },
        };
        let kinds = [ErrorKind::NotFound, ErrorKind::Unreadable, ErrorKind::Unsupported, ErrorKind::Internal];
        let bad = (rng.f64() < bad).then(|| kinds[rng.usize(..kinds.len())]);
        Self { bytes, form, states_size: rng.bool(), bad }
    }

    fn content(&self, open: &Arc<Open>) -> Content {
        let Form::Pieces { states_length, of } = self.form else {
            return Content::from_bytes(self.bytes.clone());
        };
        let (mut rest, booked) = (self.bytes.clone(), Booked::new(open, self.bytes.len() as u64));
        let pieces = std::iter::from_fn(move || {
            let _open = &booked;
            let piece = rest.split_to(of.min(rest.len()));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        let length = states_length.then_some(self.bytes.len() as u64);
        Content::from_stream(length, futures::stream::iter(pieces).fuse())
    }
}

#[async_trait]
impl InstanceSource for Archive {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        // A cursor is the last identifier, and how many empty pages have come after it.
        let (after, empty): (Option<InstanceIdentifier>, u64) = match request.after {
            Some(cursor) => cursor.decode()?,
            None => (None, 0),
        };
        let in_scope = |id: &InstanceIdentifier| match request.scope {
            Scope::Everything => true,
            Scope::Identifier(scope) => scope.covers(id),
        };
        let mut rest = self
            .items
            .iter()
            .filter(|(id, _)| in_scope(id) && after.as_ref().is_none_or(|after| *id > after));
        let begin = after.as_ref().map_or(0, |after| after.to_string().len() as u64);
        let mut rng = Rng::with_seed(self.paging ^ begin.wrapping_mul(7919) ^ (empty << 32));
        let limit = match rng.u8(..8) {
            0 if empty < 2 => 0,
            1 => 1,
            _ => rng.usize(1..=request.limit),
        };
        let mut page = Page::default();
        let mut last = None;
        for (id, item) in rest.by_ref().take(limit) {
            match item {
                Item::Instance(held) => {
                    let instance = Instance::new(id.clone());
                    let size = held.bytes.len() as u64;
                    page.instances.push(if held.states_size { instance.with_size(size) } else { instance });
                }
                Item::Failure => page.failures.push(ListFailure::new(id.to_string(), "it cannot be listed")),
            }
            last = Some(id.clone());
        }
        if rng.u8(..20) == 0 {
            page.warnings.push(ListWarning::new("odd", "a warning", 1));
        }
        // The end may be told with the last instances, or by an empty page after them.
        let ended = rest.next().is_none() && (limit == 0 || rng.bool() || last.is_none());
        if !ended {
            page.next = Some(match last {
                Some(last) => Cursor::encode(&(Some(last), 0))?,
                None => Cursor::encode(&(after, empty + 1))?,
            });
        }
        Ok(page)
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        match self.held(instance.identifier()) {
            // The messages differ, since a source that refuses many instances alike fails.
            Some(Held { bad: Some(kind), .. }) => {
                Err(Error::new(*kind, format!("it is bad: {}", instance.identifier().sop_instance_uid())))
            }
            Some(held) => Ok(held.content(&self.open)),
            None => Err(Error::new(ErrorKind::NotFound, "it is gone")),
        }
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let held = self.held(instance.identifier()).filter(|_| self.copies);
        Ok(held
            .map(|held| CopySource::new(format!("{URL}{}", instance.identifier()), held.bytes.len() as u64)))
    }

    async fn estimate(&self, _: &ExportSource) -> Result<Option<u64>> {
        // An estimate may be wrong.
        Ok(self.paging.is_multiple_of(2).then_some(self.paging % 200))
    }
}
