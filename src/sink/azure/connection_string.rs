//! Azure Storage connection strings.

use secrecy::{ExposeSecret, SecretString};

use super::container::{AzureCredential, EMULATOR_ACCOUNT, EMULATOR_KEY, is_account_name};
use super::sas::SasFields;
use crate::error::{Error, Result};

/// The default host and port of the emulator's blob service.
const EMULATOR_HOST: &str = "127.0.0.1";
const EMULATOR_PORT: u16 = 10000;

/// The suffix of the public cloud.
const DEFAULT_SUFFIX: &str = "core.windows.net";

/// Keys of other services and of read-only replicas. The portal's connection strings have them; they are ignored.
const OTHER_SERVICES: [&str; 10] = [
    "QueueEndpoint",
    "TableEndpoint",
    "FileEndpoint",
    "DfsEndpoint",
    "WebEndpoint",
    "BlobSecondaryEndpoint",
    "QueueSecondaryEndpoint",
    "TableSecondaryEndpoint",
    "FileSecondaryEndpoint",
    "DfsSecondaryEndpoint",
];

/// The parts of a connection string that concern the blob service. No `Debug`: any value may be a misplaced secret.
pub(super) struct ConnectionString {
    /// The account, if it is named.
    pub(super) account: Option<String>,
    /// The blob endpoint, not yet checked.
    pub(super) endpoint: String,
    /// What requests are signed with.
    pub(super) credential: AzureCredential,
}

/// The values by key.
#[derive(Default)]
struct Pairs<'a> {
    protocol: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    endpoint: Option<&'a str>,
    suffix: Option<&'a str>,
    sas: Option<&'a str>,
    development: Option<&'a str>,
    proxy: Option<&'a str>,
}

impl ConnectionString {
    /// Parses `Key=Value` pairs separated by `;`, with keys in any order and case. The first `=` ends the key, and an
    /// empty value counts as absent. `at` is the pointer of the property, for errors. No error repeats a value or an
    /// unknown key, which may be the second half of a secret that contains a `;`.
    pub(super) fn parse(text: &SecretString, at: &str) -> Result<Self> {
        let fault = |fault: &str| Error::invalid(at, format!("'{at}' {fault}"));
        let pairs = Pairs::parse(text.expose_secret(), at)?;
        let development = match pairs.development {
            None => false,
            Some(flag) if flag.eq_ignore_ascii_case("true") => true,
            Some(_) => return Err(fault("has a UseDevelopmentStorage other than true")),
        };
        let emulator = match pairs.account {
            Some(EMULATOR_ACCOUNT) => true,
            None => development,
            Some(_) if development => {
                return Err(fault("has UseDevelopmentStorage and another account's name"));
            }
            Some(name) if is_account_name(name) => false,
            Some(_) => return Err(fault("has an invalid AccountName")),
        };
        let protocol = match pairs.protocol {
            None => None,
            Some(protocol) if protocol.eq_ignore_ascii_case("https") => Some("https"),
            Some(protocol) if protocol.eq_ignore_ascii_case("http") => Some("http"),
            Some(_) => return Err(fault("has a DefaultEndpointsProtocol other than https and http")),
        };
        if pairs.proxy.is_some() && !development {
            return Err(fault("has a DevelopmentStorageProxyUri without UseDevelopmentStorage"));
        }
        let credential = match (pairs.key, pairs.sas) {
            (Some(_), Some(_)) => return Err(fault("has both an AccountKey and a SharedAccessSignature")),
            (Some(EMULATOR_KEY), None) | (None, None) if emulator => AzureCredential::Emulator,
            (Some(_), None) => {
                return Err(fault(
                    "has an AccountKey: account keys are not accepted, use a SAS or a managed identity",
                ));
            }
            (None, Some(sas)) => {
                let sas = sas.strip_prefix('?').unwrap_or(sas);
                if let Err(fault) = SasFields::parse(sas) {
                    let message = format!("the SharedAccessSignature in '{at}' {fault}");
                    return Err(Error::invalid(at, message));
                }
                AzureCredential::Sas(SecretString::from(sas))
            }
            (None, None) => AzureCredential::Anonymous,
        };
        let endpoint = match (pairs.endpoint, pairs.proxy) {
            (Some(_), Some(_)) => {
                return Err(fault("has both a BlobEndpoint and a DevelopmentStorageProxyUri"));
            }
            (Some(endpoint), None) => endpoint.to_owned(),
            (None, _) if emulator && pairs.suffix.is_some() => {
                return Err(fault("names the emulator and an EndpointSuffix"));
            }
            (None, Some(proxy)) => proxied(proxy).ok_or_else(|| {
                fault("has a DevelopmentStorageProxyUri that is not 'http://<host>' or 'https://<host>'")
            })?,
            (None, None) if emulator => {
                let scheme = protocol.unwrap_or("http");
                format!("{scheme}://{EMULATOR_HOST}:{EMULATOR_PORT}/{EMULATOR_ACCOUNT}")
            }
            (None, None) => {
                let account =
                    pairs.account.ok_or_else(|| fault("has neither an AccountName nor a BlobEndpoint"))?;
                let scheme = protocol.unwrap_or("https");
                format!("{scheme}://{account}.blob.{}", pairs.suffix.unwrap_or(DEFAULT_SUFFIX))
            }
        };
        let account = if emulator { Some(EMULATOR_ACCOUNT) } else { pairs.account };
        Ok(Self { account: account.map(str::to_owned), endpoint, credential })
    }
}

impl<'a> Pairs<'a> {
    fn parse(text: &'a str, at: &str) -> Result<Self> {
        let mut pairs = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let given = text.split(';').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty());
        for (index, pair) in given {
            let fault = |fault: &str| Error::invalid(at, format!("'{at}' {fault} at pair {}", index + 1));
            let (key, value) = pair.split_once('=').ok_or_else(|| fault("has no '='"))?;
            let (key, value) = (key.trim(), value.trim());
            let slot = match key.to_ascii_lowercase().as_str() {
                "defaultendpointsprotocol" => Some(&mut pairs.protocol),
                "accountname" => Some(&mut pairs.account),
                "accountkey" => Some(&mut pairs.key),
                "blobendpoint" => Some(&mut pairs.endpoint),
                "endpointsuffix" => Some(&mut pairs.suffix),
                "sharedaccesssignature" => Some(&mut pairs.sas),
                "usedevelopmentstorage" => Some(&mut pairs.development),
                "developmentstorageproxyuri" => Some(&mut pairs.proxy),
                _ if OTHER_SERVICES.iter().any(|other| other.eq_ignore_ascii_case(key)) => None,
                _ => return Err(fault("has an unknown key")),
            };
            if seen.iter().any(|earlier| earlier.eq_ignore_ascii_case(key)) {
                return Err(fault("has a repeated key"));
            }
            seen.push(key);
            if let Some(slot) = slot {
                *slot = Some(value).filter(|value| !value.is_empty());
            }
        }
        Ok(pairs)
    }
}

/// The emulator's endpoint at the host of a proxy, and at its port if the proxy's URI has one.
fn proxied(proxy: &str) -> Option<String> {
    let (scheme, authority) = proxy.split_once("://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() || authority.contains('/') {
        return None;
    }
    let host = authority.rsplit_once(']').map_or(authority, |(_, after)| after);
    let port = if host.contains(':') { String::new() } else { format!(":{EMULATOR_PORT}") };
    Some(format!("{scheme}://{authority}{port}/{EMULATOR_ACCOUNT}"))
}
