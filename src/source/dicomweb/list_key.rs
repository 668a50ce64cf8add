//! Keys of list entries that stand for something other than a row with a UID. No UID contains their first character.

use super::page::ListingCaveat;

/// The whole list, which the server fails to return.
pub(super) const FAILED: &str = "!failed";

const BROKEN: &str = "!row";
const CHANGED: &str = "!changed";
const CAPPED: &str = "!capped";
const FEWER: &str = "!fewer";

/// The level of a list in the DICOM hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Study,
    Series,
    Instance,
}

/// A row that the server fails to return.
pub(super) fn broken_row(offset: usize) -> String {
    format!("{BROKEN}{offset:09}")
}

/// Whether the key stands for rows that the server fails to return.
pub(super) fn is_broken(key: &str) -> bool {
    key == FAILED || key.starts_with(BROKEN)
}

/// A row without a UID.
pub(super) fn unnamed_row(number: usize) -> String {
    format!("?{number:09}")
}

/// The key of the failure for a list that is not complete, if the caveat means that.
pub(super) fn of_caveat(caveat: ListingCaveat) -> Option<&'static str> {
    match caveat {
        ListingCaveat::Changed => Some(CHANGED),
        ListingCaveat::Capped => Some(CAPPED),
        ListingCaveat::FewerThanStated => Some(FEWER),
        ListingCaveat::PagingIgnored => None,
    }
}

/// The message of the failure for an entry whose key is not a valid UID.
pub(super) fn message(key: &str, level: Level) -> String {
    let (one, many, uid) = match level {
        Level::Study => ("study", "studies", "Study Instance UID"),
        Level::Series => ("series", "series", "Series Instance UID"),
        Level::Instance => ("instance", "instances", "SOP Instance UID"),
    };
    match key {
        FAILED => format!("the server fails to list {many}"),
        CHANGED => format!("{many} may be missing: their list changes each time it is read"),
        CAPPED => format!("{many} are missing: the server caps their list"),
        FEWER => format!("{many} are missing: the server states more than it lists"),
        _ if key.starts_with(BROKEN) => format!("the server fails to list one {one}"),
        _ => format!("the server lists one {one} with an invalid or missing {uid}"),
    }
}
