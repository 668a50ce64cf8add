//! Clients of cloud storage, for sinks and sources: connections, hosts and URIs.

mod clients;
mod hosts;
mod uri;

pub(crate) use self::clients::HttpClients;
pub(crate) use self::hosts::{ListedHost, is_loopback, label_before, not_a_host};
pub(crate) use self::uri::PlainUri;
