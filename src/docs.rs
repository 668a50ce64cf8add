//! Guides, as they stand in the repository's `docs` folder.
//!
//! - [`server`]: adding export to a server: source, tenants, routes, authorization, tests
//! - [`durability`]: what is stored, what is repeated after a crash, and how to resume
//! - [`replicas`]: several replicas of a server over one PostgreSQL database
//! - [`operations`]: logs, progress, metrics, alerts and events of a server that exports, and upgrades
//! - [`integrity`]: checksums, the identity check, and the manifest
//! - [`scaling`]: what limits an export, with measurements
//! - [`restate`]: running exports on several machines
//! - [`orthanc`]: exporting from Orthanc, or any other DICOMweb server, to Azure
//! - [`s3`]: exporting to and from Amazon S3 and compatible stores
//! - [`gcs`]: exporting to and from Google Cloud Storage
//! - [`dicomweb`]: what the DICOMweb source does about the differences between servers
//! - [`security`]: threat model, where credentials are sent, and how to report a vulnerability

// A page links to other pages through references such as `[restate]`, whose definition at its end is a relative path for
// the repository's page. The definition in front of the page is the one that counts here: the first definition of a
// reference wins. A page's examples are compiled if the features that they use are enabled.

#[doc = "[replicas]: crate::docs::replicas\n[operations]: crate::docs::operations\n\n"]
#[doc = include_str!("../docs/server.md")]
#[cfg(any(not(doctest), all(feature = "azure", feature = "http", feature = "postgres")))]
pub mod server {}

#[doc = "[replicas]: crate::docs::replicas\n\n"]
#[doc = include_str!("../docs/durability.md")]
#[cfg(any(not(doctest), feature = "redb"))]
pub mod durability {}

#[doc = "[restate]: crate::docs::restate\n\n"]
#[doc = include_str!("../docs/replicas.md")]
#[cfg(any(not(doctest), feature = "postgres"))]
pub mod replicas {}

#[doc = "[replicas]: crate::docs::replicas\n\n"]
#[doc = include_str!("../docs/operations.md")]
pub mod operations {}

#[doc = include_str!("../docs/integrity.md")]
pub mod integrity {}

#[doc = "[restate]: crate::docs::restate\n\n"]
#[doc = include_str!("../docs/scaling.md")]
pub mod scaling {}

#[doc = "[durability]: crate::docs::durability\n\n"]
#[doc = include_str!("../docs/restate.md")]
#[cfg(any(not(doctest), all(feature = "azure", feature = "restate")))]
pub mod restate {}

#[doc = "[dicomweb]: crate::docs::dicomweb\n\n"]
#[doc = include_str!("../docs/orthanc.md")]
#[cfg(any(not(doctest), feature = "dicomweb"))]
pub mod orthanc {}

#[doc = include_str!("../docs/s3.md")]
#[cfg(any(not(doctest), feature = "s3"))]
pub mod s3 {}

#[doc = "[s3]: crate::docs::s3\n\n"]
#[doc = include_str!("../docs/gcs.md")]
#[cfg(any(not(doctest), feature = "gcs"))]
pub mod gcs {}

#[doc = "[orthanc]: crate::docs::orthanc\n\n"]
#[doc = include_str!("../docs/dicomweb.md")]
pub mod dicomweb {}

#[doc = include_str!("../SECURITY.md")]
pub mod security {}

#[doc = include_str!("../README.md")]
#[cfg(all(doctest, feature = "azure"))]
mod readme {}
