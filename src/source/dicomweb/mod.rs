//! [`DicomWebSource`]: exports from any server that speaks DICOMweb.
//!
//! `source` lists studies (`study_list`) and the contents of each (`study_listing`, kept by `listing_cache`) into pages
//! (`page`). Every list is a `paged_list` of `query` results. `retrieve` reads instances, through `multipart`. Everything
//! is sent by `client`.

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
mod query;
mod recovery;
mod request_limiter;
mod response;
mod retrieve;
mod source;
mod study_list;
mod study_lister;
mod study_listing;
mod study_parts;

pub use self::builder::DicomWebSourceBuilder;
pub use self::credentials::DicomWebCredentials;
pub use self::source::DicomWebSource;
