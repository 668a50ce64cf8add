//! Buckets of Amazon S3 and compatible stores: settings, policy, credentials and clients.

mod bucket;
mod checksum;
mod client;
mod connections;
mod endpoint;
mod policy;
mod schema;
mod settings;

pub(crate) use self::bucket::{AccessKeys, Encryption, S3Bucket, S3Credential};
pub(crate) use self::client::S3Client;
pub(crate) use self::connections::S3Connections;
pub use self::endpoint::BucketAddressing;
pub use self::policy::S3Policy;
pub(crate) use self::schema::settings_schema;
pub(crate) use self::settings::read_settings;
