//! [`SeenInstances`]: recognizes files of instances that were listed before, with bounded memory.

use std::collections::HashSet;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};

use siphasher::sip128::{Hasher128, SipHasher13};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;

/// How many hashes are held in memory, about 5 MB: what a hash table of 2^18 slots takes. More are in a temporary file.
const MAX_IN_MEMORY: usize = (1 << 18) / 8 * 7;

/// The identifiers of the instances listed so far, as 128-bit hashes with a random key.
pub(super) struct SeenInstances {
    key: [u8; 16],
    hashes: Hashes,
}

enum Hashes {
    Memory(HashSet<u128>),
    Disk(HashFile),
}

impl SeenInstances {
    pub(super) fn new() -> Self {
        Self { key: Uuid::new_v4().into_bytes(), hashes: Hashes::Memory(HashSet::new()) }
    }

    /// Adds an identifier. Returns whether it is new.
    pub(super) fn insert(&mut self, identifier: &InstanceIdentifier) -> Result<bool> {
        let hash = self.hash(identifier);
        if let Hashes::Memory(hashes) = &self.hashes
            && hashes.len() == MAX_IN_MEMORY
        {
            self.move_to_disk();
        }
        match &mut self.hashes {
            Hashes::Memory(hashes) => Ok(hashes.insert(hash)),
            Hashes::Disk(file) => file.insert(hash).map_err(disk_error),
        }
    }

    /// Moves the hashes to a temporary file. Where there is no room for one, they stay in memory.
    pub(super) fn move_to_disk(&mut self) {
        let Hashes::Memory(hashes) = &self.hashes else { return };
        match HashFile::of(hashes) {
            Ok(file) => self.hashes = Hashes::Disk(file),
            Err(cause) => {
                let kind = cause.kind();
                tracing::warn!(%kind, "no temporary file can be written: a listing is held in memory");
            }
        }
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
}

fn disk_error(cause: io::Error) -> Error {
    let message = "the temporary file of a listing cannot be used";
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

/// A hash table in an unnamed temporary file, with linear probing. At most half of its slots are used.
struct HashFile {
    file: File,
    /// A power of two.
    slots: u64,
    used: u64,
}

/// The bytes of a slot. All zeros: the slot is free.
const SLOT: usize = 16;

/// The slots that are read at once.
const BLOCK: u64 = 32;

impl HashFile {
    /// Creates a table with room for twice `count` hashes.
    fn new(count: u64) -> io::Result<Self> {
        let slots = (count * 4).next_power_of_two().max(BLOCK);
        let file = tempfile::tempfile()?;
        file.set_len(slots * SLOT as u64)?;
        Ok(Self { file, slots, used: 0 })
    }

    fn of(hashes: &HashSet<u128>) -> io::Result<Self> {
        let mut file = Self::new(hashes.len() as u64)?;
        for hash in hashes {
            file.insert(*hash)?;
        }
        Ok(file)
    }

    /// Adds a hash. Returns whether it is new.
    fn insert(&mut self, hash: u128) -> io::Result<bool> {
        if (self.used + 1) * 2 > self.slots {
            self.grow()?;
        }
        let hash = hash.max(1).to_le_bytes();
        let mut slot = u64::from_le_bytes(hash[..8].try_into().unwrap_or_default()) & (self.slots - 1);
        loop {
            let first = slot - slot % BLOCK;
            let mut block = [0; BLOCK as usize * SLOT];
            self.file.seek(SeekFrom::Start(first * SLOT as u64))?;
            self.file.read_exact(&mut block)?;
            for (at, found) in (first..).zip(block.chunks_exact(SLOT)).skip((slot - first) as usize) {
                if found == hash {
                    return Ok(false);
                }
                if found == [0; SLOT] {
                    self.file.seek(SeekFrom::Start(at * SLOT as u64))?;
                    self.file.write_all(&hash)?;
                    self.used += 1;
                    return Ok(true);
                }
            }
            slot = (first + BLOCK) & (self.slots - 1);
        }
    }

    fn grow(&mut self) -> io::Result<()> {
        let mut larger = Self::new(self.used)?;
        self.file.rewind()?;
        let mut reader = io::BufReader::with_capacity(64 << 10, &self.file);
        let mut slot = [0; SLOT];
        for _ in 0..self.slots {
            reader.read_exact(&mut slot)?;
            if slot != [0; SLOT] {
                larger.insert(u128::from_le_bytes(slot))?;
            }
        }
        *self = larger;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_on_disk_recognizes_every_hash() {
        let mut random = fastrand::Rng::with_seed(5);
        let hashes: Vec<u128> = (0..3_000).map(|_| random.u128(..)).collect();
        let mut file = HashFile::new(0).unwrap();
        assert!(hashes.iter().all(|hash| file.insert(*hash).unwrap()));
        assert!(hashes.iter().all(|hash| !file.insert(*hash).unwrap()));
        assert!(file.insert(0).unwrap() && !file.insert(0).unwrap());
        assert!(file.slots < 20_000, "{}", file.slots);
    }
}
