//! Instances that are made up: a listing and bytes for nothing.

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Cursor, Instance, ListRequest, Page};
use dicom_export::{Content, InstanceIdentifier, InstanceSource, Result, Uid};

/// Bytes an instance.
const SIZE: usize = 20_000;

/// So many instances, all of the same bytes.
pub struct Generated {
    count: u64,
    bytes: Bytes,
}

impl Generated {
    pub fn new(count: u64) -> Self {
        Self { count, bytes: Bytes::from(vec![7; SIZE]) }
    }
}

#[async_trait]
impl InstanceSource for Generated {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let from: u64 = request.after.map(Cursor::decode).transpose()?.unwrap_or(0);
        let to = (from + request.limit as u64).min(self.count);
        let study = Uid::new("1.2.826.0.1.3680043.10.999.1")?;
        let mut instances = Vec::with_capacity((to - from) as usize);
        for n in from..to {
            let series = Uid::new(&format!("1.2.826.0.1.3680043.10.999.2.{}", n / 500))?;
            let sop = Uid::new(&format!("1.2.826.0.1.3680043.10.999.3.{n}"))?;
            let identifier = InstanceIdentifier::new(study.clone(), series, sop);
            instances.push(Instance::new(identifier).with_size(SIZE as u64));
        }
        Ok(match to == self.count {
            true => Page::last(instances),
            false => Page::more(instances, Cursor::encode(&to)?),
        })
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        Ok(Content::from_bytes(self.bytes.clone()))
    }
}
