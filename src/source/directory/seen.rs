//! [`SeenInstances`]: recognizes files of instances that were listed before.

use std::collections::HashSet;
use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

use crate::model::InstanceIdentifier;

/// The identifiers of the instances listed so far, as 128-bit hashes with a random key: 20 to 40 bytes each.
#[derive(Debug)]
pub(super) struct SeenInstances {
    key: [u8; 16],
    hashes: HashSet<u128>,
}

impl SeenInstances {
    pub(super) fn new() -> Self {
        Self { key: Uuid::new_v4().into_bytes(), hashes: HashSet::new() }
    }

    fn hash(&self, identifier: &InstanceIdentifier) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        for uid in
            [identifier.study_instance_uid(), identifier.series_instance_uid(), identifier.sop_instance_uid()]
        {
            hasher.write(uid.as_str().as_bytes());
            hasher.write_u8(b'/');
        }
        hasher.finish128().as_u128()
    }

    /// Adds an identifier. Returns whether it is new.
    pub(super) fn insert(&mut self, identifier: &InstanceIdentifier) -> bool {
        let hash = self.hash(identifier);
        self.hashes.insert(hash)
    }
}
