//! [`Names`]: the names in a folder in order, with bounded memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

/// How many bytes of names are sorted in memory. A folder with more of them is sorted in parts, in a temporary file.
const MAX_IN_MEMORY: usize = 4 << 20;

/// The memory of a name besides its bytes.
const NAME_OVERHEAD: usize = 64;

/// How much of each part is read at once.
const BLOCK: usize = 16 << 10;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) name: OsString,
    pub(super) is_folder: bool,
}

/// Collects names in any order.
pub(super) struct NamesBuilder {
    names: Vec<Name>,
    size: usize,
    max_size: usize,
    /// The parts that do not fit into memory; `None`: no temporary file can be written.
    parts: Option<Parts>,
}

/// Names in order.
#[derive(Default)]
pub(super) struct Names {
    in_memory: VecDeque<Name>,
    /// The next name of each part.
    next: BinaryHeap<Reverse<(Name, usize)>>,
    parts: Parts,
}

/// Sorted parts in a temporary file.
#[derive(Default)]
struct Parts {
    file: Option<File>,
    end: u64,
    parts: Vec<Part>,
}

struct Part {
    /// What has not been read.
    start: u64,
    end: u64,
    /// What has been read and not returned.
    block: VecDeque<u8>,
}

impl NamesBuilder {
    pub(super) fn new() -> Self {
        Self { names: Vec::new(), size: 0, max_size: MAX_IN_MEMORY, parts: Some(Parts::default()) }
    }

    pub(super) fn push(&mut self, name: Name) {
        self.size += name.name.len() + NAME_OVERHEAD;
        self.names.push(name);
        if self.size > self.max_size {
            self.write_part();
        }
    }

    /// Returns the names in order.
    pub(super) fn finish(mut self) -> io::Result<Names> {
        self.names.sort_unstable();
        let mut names = Names { in_memory: self.names.into(), ..Names::default() };
        names.parts = self.parts.unwrap_or_default();
        for part in 0..names.parts.parts.len() {
            let next = names.parts.next(part)?;
            names.next.extend(next.map(|next| Reverse((next, part))));
        }
        Ok(names)
    }

    fn write_part(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        self.names.sort_unstable();
        match parts.write(&self.names) {
            Ok(()) => {
                self.names.clear();
                self.size = 0;
            }
            // The parts before this one are still used.
            Err(cause) => {
                let kind = cause.kind();
                tracing::warn!(%kind, "no temporary file can be written: the names of a folder are held in memory");
                self.max_size = usize::MAX;
            }
        }
    }
}

impl Names {
    /// Removes the first name.
    pub(super) fn pop_front(&mut self) -> io::Result<Option<Name>> {
        let is_in_memory = match (self.in_memory.front(), self.next.peek()) {
            (Some(name), Some(Reverse((other, _)))) => name < other,
            (name, None) => name.is_some(),
            (None, Some(_)) => false,
        };
        if is_in_memory {
            return Ok(self.in_memory.pop_front());
        }
        let Some(Reverse((name, part))) = self.next.pop() else { return Ok(None) };
        let next = self.parts.next(part)?;
        self.next.extend(next.map(|next| Reverse((next, part))));
        Ok(Some(name))
    }

    /// Moves the names in memory to a temporary file.
    pub(super) fn shrink(&mut self) -> io::Result<()> {
        if !self.in_memory.is_empty() {
            self.parts.write(self.in_memory.make_contiguous())?;
            self.in_memory = VecDeque::new();
            let part = self.parts.parts.len() - 1;
            let next = self.parts.next(part)?;
            self.next.extend(next.map(|next| Reverse((next, part))));
        }
        Ok(())
    }
}

impl Parts {
    /// Adds a part of sorted names.
    fn write(&mut self, names: &[Name]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile()?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.seek(SeekFrom::Start(self.end))?;
        let mut writer = BufWriter::with_capacity(BLOCK, file);
        let mut end = self.end;
        for Name { name, is_folder } in names {
            let name = name.as_encoded_bytes();
            writer.write_all(&(name.len() as u32).to_le_bytes())?;
            writer.write_all(&[u8::from(*is_folder)])?;
            writer.write_all(name)?;
            end += 5 + name.len() as u64;
        }
        writer.flush()?;
        drop(writer);
        self.parts.push(Part { start: self.end, end, block: VecDeque::new() });
        self.end = end;
        Ok(())
    }

    /// Reads the next name of a part.
    fn next(&mut self, part: usize) -> io::Result<Option<Name>> {
        let (Some(file), Some(part)) = (&mut self.file, self.parts.get_mut(part)) else { return Ok(None) };
        let Some(head) = part.take(file, 5)? else { return Ok(None) };
        let [a, b, c, d, is_folder]: [u8; 5] = head.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let length = u32::from_le_bytes([a, b, c, d]);
        let name = part.take(file, length as usize)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Some(Name { name: os_string(name)?, is_folder: is_folder == 1 }))
    }
}

impl Part {
    /// Takes the next bytes; `None` at the end.
    fn take(&mut self, file: &mut File, count: usize) -> io::Result<Option<Vec<u8>>> {
        while self.block.len() < count && self.start < self.end {
            let size = (self.end - self.start).min(BLOCK as u64);
            let mut block = vec![0; size as usize];
            file.seek(SeekFrom::Start(self.start))?;
            file.read_exact(&mut block)?;
            self.start += size;
            self.block.extend(block);
        }
        Ok((self.block.len() >= count).then(|| self.block.drain(..count).collect()))
    }
}

fn os_string(bytes: Vec<u8>) -> io::Result<OsString> {
    super::path::os_string(bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_fit_into_memory_are_sorted_in_parts() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut expected: Vec<_> =
            (0..2_000).map(|number| format!("{number:x}{}", "y".repeat(number % 300))).collect();
        random.shuffle(&mut expected);
        let mut builder = NamesBuilder { max_size: 100_000, ..NamesBuilder::new() };
        for name in &expected {
            builder.push(Name { name: name.into(), is_folder: name.len() % 2 == 0 });
            assert!(builder.size <= 100_000);
        }
        let mut names = builder.finish().unwrap();
        assert!(names.parts.parts.len() > 2);
        expected.sort();
        for (at, expected) in expected.iter().enumerate() {
            if at % 700 == 0 {
                names.shrink().unwrap();
                assert!(names.in_memory.is_empty());
            }
            let name = names.pop_front().unwrap().unwrap();
            assert_eq!((name.name.to_str().unwrap(), name.is_folder), (&**expected, expected.len() % 2 == 0));
        }
        assert_eq!(names.pop_front().unwrap(), None);
    }
}
