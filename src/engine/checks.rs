//! What is checked of each instance besides its length: [`Checksums`], and [its head](HeadCheck).

use crate::engine::identity::HeadCheck;

/// Whether what the destination says it stored is compared with what it was sent.
///
/// It takes a destination that says it: Azure does, with a CRC64 or an MD5 in its answers, and refuses what arrives
/// damaged. An answer without either is not checked; lengths always are. A difference is trouble at the destination:
/// the block, or the small blob, is sent again until the [`RetryPolicy`](crate::RetryPolicy) budget is used up, which fails the
/// operation. The page `docs/integrity.md` says what that covers.
///
/// Of 2,002 MiB of CT slices, exported over loopback in 1.05 s and 1.31 s of CPU with nothing checked, an answered CRC64
/// cost 0.14 s of either, which is why it is on by default; a server that answers only an MD5 cost 3.5 s of CPU
/// (`benches/peers.sh --data ct --tools ours+unchecked,ours --limits crc64=1`, or `md5=1`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checksums {
    /// Nothing is compared.
    Off,
    /// What this process sends is compared. What the destination copies by itself is not: no byte of it comes by here.
    #[default]
    Sent,
    /// As [`Sent`](Self::Sent), and nothing is left to the destination to copy: every instance is streamed and
    /// compared.
    Always,
}

/// The checks of an engine's transfers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Checks {
    pub(crate) checksums: Checksums,
    pub(crate) head: Option<HeadCheck>,
}

impl Checks {
    /// Whether something is asked that a copy at the destination could not give.
    pub(crate) fn need_streaming(&self) -> bool {
        self.checksums == Checksums::Always || self.head.is_some()
    }
}
