//! Buckets of Google Cloud Storage: settings, policy, credentials and clients.

mod bucket;
mod checksum;
mod client;
mod connections;
mod policy;
mod schema;

pub(crate) use self::bucket::{GcsBucket, GcsCredential, read_settings};
pub(crate) use self::client::GcsClient;
pub(crate) use self::connections::GcsConnections;
pub use self::policy::GcsPolicy;
pub(crate) use self::schema::settings_schema;
