//! [`StudyParts`]: divides the studies of a server into parts that are shorter than a cap.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use chrono::{Days, NaiveDate};

use super::query::Row;

/// The maximum number of parts by the prefix of one attribute.
const MAX_PREFIX_PARTS: usize = 2000;

/// Characters that identifiers and names contain; wildcards are left out.
const CHARACTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_./^ :";

/// A prefix that no value has: a server that matches it ignores the attribute.
const UNUSED_PREFIX: &str = "~~~~";

/// A part of the studies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StudyPart {
    /// Both bounds are included. Some servers match studies without a date for ranges with one bound.
    Dates(NaiveDate, NaiveDate),
    /// Studies whose attribute begins with a text, on a day or on any day.
    Prefix { day: Option<NaiveDate>, attribute: &'static str, prefix: String },
    /// Studies without a date, which some servers match for a range that ends long ago.
    Undated,
    /// Studies whose attribute is a text.
    Exact { day: Option<NaiveDate>, attribute: &'static str, value: String },
}

/// The parts that are to be listed. A server that caps its lists returns as many rows for a long part as for the whole list;
/// such a part is divided further.
///
/// Parts are ranges of study dates, down to one day. What cannot be divided by date, because many studies have the same or
/// none, is divided by the beginning of the patient's identifier and name.
#[derive(Debug)]
pub(super) struct StudyParts {
    /// The length of the whole list.
    cap: usize,
    /// The numbers of studies by date, as far as they are known.
    dates: BTreeMap<NaiveDate, u32>,
    has_undated: bool,
    pending: VecDeque<StudyPart>,
    /// The number of parts by prefix, and those that stayed too long, for each attribute.
    prefix_parts: BTreeMap<&'static str, (usize, usize)>,
    /// Prefixes that were divided, in lower case, with the studies that were listed for them: some servers ignore case.
    divided: HashSet<(&'static str, String, u64)>,
    /// Whether studies without a date were looked for.
    tried_undated: bool,
    /// Whether the server has more studies without a date than it lists at once.
    has_many_undated: bool,
    /// Whether a part has a study that the list does not have.
    is_capped: bool,
    is_supported: bool,
}

impl StudyParts {
    /// Divides a list of this length.
    pub(super) fn new(length: usize, dates: &BTreeMap<NaiveDate, u32>, is_capped: bool) -> Self {
        let dated: u32 = dates.values().sum();
        let mut parts = Self {
            cap: length,
            dates: dates.clone(),
            has_undated: (dated as usize) < length,
            pending: VecDeque::new(),
            prefix_parts: BTreeMap::new(),
            divided: HashSet::new(),
            tried_undated: false,
            has_many_undated: false,
            is_capped,
            is_supported: true,
        };
        let bounds = [(1800, 1, 1), (2999, 12, 31)].map(|(y, m, d)| NaiveDate::from_ymd_opt(y, m, d));
        if let [Some(first), Some(last)] = bounds {
            match dates.is_empty() {
                true => parts.pending.push_back(StudyPart::Dates(first, last)),
                false => parts.divide_dates(first, last),
            }
        }
        parts
    }

    /// Takes up to `count` parts that are to be listed next.
    pub(super) fn take(&mut self, count: usize) -> Vec<StudyPart> {
        let needs_undated = self.is_capped || (self.has_undated && self.looks_capped());
        if self.pending.is_empty() && self.is_supported && needs_undated && !self.tried_undated {
            // No range of dates with two bounds has the studies without one.
            self.tried_undated = true;
            self.pending.push_back(StudyPart::Undated);
        }
        self.pending.drain(..count.min(self.pending.len())).collect()
    }

    /// Returns parts that could not be listed for now.
    pub(super) fn put_back(&mut self, parts: Vec<StudyPart>) {
        for part in parts.into_iter().rev() {
            self.pending.push_front(part);
        }
    }

    /// Takes the result of a part: its studies, and whether some are not in the list.
    pub(super) fn settle(&mut self, part: StudyPart, rows: &[Row], has_hidden: bool) {
        self.is_capped |= has_hidden;
        let length = rows.len();
        let dates: Vec<_> = rows.iter().filter_map(|row| row.date).collect();
        // Some servers return one row more than their cap.
        let is_full = length + 1 >= self.cap.max(2);
        if let StudyPart::Dates(from, to) = part
            && dates.iter().any(|date| *date < from || *date > to)
        {
            return self.give_up();
        }
        match part {
            StudyPart::Undated => {
                // Studies that have no patient identifier and no name either cannot be found.
                self.has_many_undated = is_full;
                if is_full || rows.is_empty() {
                    self.divide_by_prefix(None);
                }
            }
            _ if !is_full => {}
            StudyPart::Dates(from, to) if from < to => {
                for date in &dates {
                    self.dates.entry(*date).or_insert(1);
                }
                self.divide_dates(from, to);
            }
            StudyPart::Dates(day, _) => {
                if self.is_capped || self.looks_capped() {
                    self.divide_by_prefix(Some(day));
                }
            }
            StudyPart::Prefix { prefix, .. } if prefix == UNUSED_PREFIX => self.give_up(),
            StudyPart::Prefix { day, attribute, prefix } => {
                let mut hasher = DefaultHasher::new();
                rows.iter().for_each(|row| row.key.hash(&mut hasher));
                if self.divided.insert((attribute, prefix.to_lowercase(), hasher.finish())) {
                    self.add_prefixes(day, attribute, &prefix);
                }
            }
            StudyPart::Exact { attribute, .. } => self.prefix_parts.entry(attribute).or_default().1 += 1,
        }
    }

    /// Leaves the list as it is, because the server does not list parts.
    pub(super) fn give_up(&mut self) {
        self.pending.clear();
        self.is_supported = false;
    }

    pub(super) fn is_capped(&self) -> bool {
        self.is_capped
    }

    /// Whether studies may be missing although all parts were listed.
    pub(super) fn is_incomplete(&self) -> bool {
        // One attribute that divides all studies is enough.
        let unresolved = !self.prefix_parts.is_empty()
            && self.prefix_parts.values().all(|(_, unresolved)| *unresolved > 0);
        !self.is_supported || self.has_many_undated || unresolved
    }

    /// Whether the list may end because of a cap of a round number of rows, or one row after it.
    fn looks_capped(&self) -> bool {
        looks_capped(self.cap)
    }

    /// Divides a range at the median of the dates that are known.
    fn divide_dates(&mut self, from: NaiveDate, to: NaiveDate) {
        let total: u32 = self.dates.range(from..=to).map(|(_, count)| count).sum();
        let mut below = 0;
        let median = self.dates.range(from..=to).find(|(_, count)| {
            below += **count;
            2 * below >= total
        });
        let Some((&median, _)) = median else {
            // Studies without a date that the server matches anyway are divided by prefix.
            return;
        };
        if let Some(before) = median.checked_sub_days(Days::new(1)).filter(|before| from <= *before) {
            self.pending.push_back(StudyPart::Dates(from, before));
        }
        self.pending.push_back(StudyPart::Dates(median, median));
        if let Some(after) = median.checked_add_days(Days::new(1)).filter(|after| *after <= to) {
            self.pending.push_back(StudyPart::Dates(after, to));
        }
    }

    fn divide_by_prefix(&mut self, day: Option<NaiveDate>) {
        for attribute in ["PatientID", "PatientName"] {
            self.pending.push_back(StudyPart::Prefix { day, attribute, prefix: UNUSED_PREFIX.into() });
        }
        for attribute in ["PatientID", "PatientName"] {
            self.add_prefixes(day, attribute, "");
        }
    }

    fn add_prefixes(&mut self, day: Option<NaiveDate>, attribute: &'static str, prefix: &str) {
        let (parts, unresolved) = self.prefix_parts.entry(attribute).or_default();
        if *parts + CHARACTERS.len() > MAX_PREFIX_PARTS {
            *unresolved += 1;
            return;
        }
        *parts += CHARACTERS.len();
        if !prefix.is_empty() {
            self.pending.push_back(StudyPart::Exact { day, attribute, value: prefix.into() });
        }
        let longer = CHARACTERS.iter().map(|next| format!("{prefix}{}", char::from(*next)));
        self.pending.extend(longer.map(|prefix| StudyPart::Prefix { day, attribute, prefix }));
    }
}

impl StudyPart {
    /// The matching parameters (PS3.18 8.3.4.1), percent-encoded.
    pub(super) fn matching(&self) -> String {
        let day = |day: &Option<NaiveDate>| {
            day.map(|day| format!("StudyDate={}&", day.format("%Y%m%d"))).unwrap_or_default()
        };
        match self {
            Self::Dates(from, to) => format!("StudyDate={}-{}", from.format("%Y%m%d"), to.format("%Y%m%d")),
            Self::Prefix { day: on, attribute, prefix } => {
                format!("{}{attribute}={}*", day(on), percent_encoded(prefix))
            }
            Self::Undated => "StudyDate=-18000101".to_owned(),
            Self::Exact { day: on, attribute, value } => {
                format!("{}{attribute}={}", day(on), percent_encoded(value))
            }
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// Whether a list of this length may end because of a cap of a round number of rows, or one row after it.
pub(super) fn looks_capped(length: usize) -> bool {
    let is_round =
        |length: usize| length > 0 && (length.is_multiple_of(100) || matches!(length, 10 | 20 | 25 | 50));
    is_round(length) || is_round(length.saturating_sub(1))
}
