//! [`DicomWebSource`]: exports from any server that speaks DICOMweb.
//!
//! `source` lists the studies (`study_lister`, which checks them against `study_parts`) and the contents of each
//! (`study_listing`, kept by `listing_cache` and completed by `recovery`) into pages (`page`). A `paged_list` reads one list
//! into a `row_set`: `queries` requests the pages of a `query` and reads them with `json_rows` and `row_text`. `retrieve` reads instances, through `multipart`, and `read_ahead` reads studies of small instances. `client` sends all
//! requests.

mod body_reader;
mod builder;
mod client;
mod credentials;
mod json_rows;
mod list_key;
mod listing_cache;
mod media_type;
mod multipart;
mod page;
mod paged_list;
mod queries;
mod query;
mod read_ahead;
mod recovery;
mod request_limiter;
mod response;
mod retrieve;
mod row_set;
mod row_text;
mod source;
mod study_list;
mod study_lister;
mod study_listing;
mod study_parts;

pub use self::builder::DicomWebSourceBuilder;
pub use self::credentials::DicomWebCredentials;
pub use self::source::DicomWebSource;
