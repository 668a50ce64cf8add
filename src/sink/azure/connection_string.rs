//! Azure Storage connection strings.

use secrecy::{ExposeSecret, SecretString};

use super::container::AzureCredential;
use super::sas::read_sas;
use super::uri::is_account_name;
use crate::error::{Error, Result};

/// The emulator's account ("Use the Azurite emulator for local Azure Storage development").
pub(crate) const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

/// The emulator's account key: published, the same for everybody, and so no secret.
pub(crate) const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The port of the emulator's blob service, unless a string names another.
const EMULATOR_PORT: u16 = 10000;

/// Where the emulator listens, unless a string says otherwise.
const EMULATOR_ORIGIN: &str = "127.0.0.1";

/// The suffix of the public cloud.
const DEFAULT_SUFFIX: &str = "core.windows.net";

/// Keys of other services and of read-only replicas: they stand in strings that the portal shows, and mean nothing here.
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

/// What a connection string says of the blob service. No `Debug`: people put secrets into the wrong values.
pub(crate) struct ConnectionString {
    /// The account it names, if it names one.
    pub(crate) account: Option<String>,
    /// The blob endpoint, as text that nobody has checked yet.
    pub(crate) endpoint: String,
    /// What it brings to sign with.
    pub(crate) credential: AzureCredential,
}

/// The pairs, as they stand.
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
    /// Reads `Key=Value` pairs parted by `;`, keys in any order and case, each parted from its value by the first
    /// `=`. An empty value counts as absent. `at` is the property it stands in, for errors; none repeats a value, nor
    /// a key that is not known: it may be the second half of a value that held a `;`.
    pub(crate) fn read(text: &SecretString, at: &str) -> Result<Self> {
        let fault = |fault: &str| Error::invalid(at, format!("'{at}' {fault}"));
        let pairs = Pairs::read(text.expose_secret(), at)?;
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
            Some(_) => return Err(fault("has an AccountName that is not one")),
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
                    "has an AccountKey: account keys are not accepted, a SAS or a managed identity is",
                ));
            }
            (None, Some(sas)) => AzureCredential::Sas(
                read_sas(sas, at).map_err(|_| fault("has a SharedAccessSignature that is not one"))?,
            ),
            (None, None) => AzureCredential::Anonymous,
        };
        let endpoint = match (pairs.endpoint, pairs.proxy) {
            (Some(_), Some(_)) => {
                return Err(fault("has both a BlobEndpoint and a DevelopmentStorageProxyUri"));
            }
            (Some(endpoint), None) => endpoint.to_owned(),
            (None, _) if emulator && pairs.suffix.is_some() => {
                return Err(fault("names the emulator, which has no EndpointSuffix"));
            }
            (None, Some(proxy)) => proxied(proxy).ok_or_else(|| {
                fault("has a DevelopmentStorageProxyUri that is not 'http://<host>' or 'https://<host>'")
            })?,
            (None, None) if emulator => {
                let scheme = protocol.unwrap_or("http");
                format!("{scheme}://{EMULATOR_ORIGIN}:{EMULATOR_PORT}/{EMULATOR_ACCOUNT}")
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
    fn read(text: &'a str, at: &str) -> Result<Self> {
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
                return Err(fault("has a key again"));
            }
            seen.push(key);
            if let Some(slot) = slot {
                *slot = Some(value).filter(|value| !value.is_empty());
            }
        }
        Ok(pairs)
    }
}

/// The emulator's endpoint with its host replaced by a proxy's. The port stays the emulator's unless the proxy's URI
/// names one.
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
