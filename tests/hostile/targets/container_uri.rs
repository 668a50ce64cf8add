//! A container's URI under several policies, and a policy's hosts.

use dicom_export::SinkProvider;
use dicom_export::sink::azure::{Addressing, AzureBlobPolicy, AzureBlobProvider};
use serde_json::json;
use url::{Host, Url};

const LISTED: [&str; 2] = ["files.example", "private.example"];

/// Azure's public and sovereign clouds.
const CLOUDS: [&str; 5] = [
    ".blob.core.windows.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
    ".blob.core.cloudapi.de",
    ".blob.storage.azure.net",
];

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let listed = AzureBlobPolicy::new()
        .allow_host(LISTED[0], Addressing::Domain)
        .and_then(|policy| policy.allow_host(LISTED[1], Addressing::Path))
        .unwrap()
        .allow_anonymous(true);
    let policies = [(AzureBlobPolicy::new(), false), (AzureBlobPolicy::development(), true), (listed, false)];
    for (policy, development) in policies {
        let provider = AzureBlobProvider::new(policy);
        for identity in [false, true] {
            let settings = json!({ "blobContainerUri": text, "useManagedIdentity": identity });
            match provider.validate(&settings) {
                Err(error) => super::assert_input_error(&error),
                Ok(checked) => {
                    assert_allowed(&checked.location, development);
                    assert!(!identity || checked.location.starts_with("https://"), "{}", checked.location);
                    assert!(!identity || checked.secret.is_none());
                }
            }
        }
    }
    for addressing in [Addressing::Subdomain, Addressing::Domain, Addressing::Path] {
        if let Err(error) = AzureBlobPolicy::new().allow_host(&text, addressing) {
            super::assert_input_error(&error);
        }
    }
}

/// Asserts that a validated location is allowed by the policies above, and that requests are sent to it as validated.
pub(crate) fn assert_allowed(location: &str, development: bool) {
    let url = Url::parse(location).unwrap();
    assert_eq!(url.as_str(), location, "requests would be sent to another URL");
    assert!(url.username().is_empty() && url.password().is_none(), "{location}");
    assert!(url.query().is_none() && url.fragment().is_none(), "{location}");
    let host = url.host_str().unwrap();
    let loopback = match url.host().unwrap() {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let cloud = CLOUDS.iter().any(|cloud| host.ends_with(cloud)) && url.port().is_none();
    assert!(cloud || LISTED.contains(&host) || (development && loopback), "{location}");
    assert!(url.scheme() == "https" || (development && loopback && url.scheme() == "http"), "{location}");
    let plain = |segment: &str| segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'$');
    assert!(url.path_segments().unwrap().all(|segment| !segment.is_empty() && plain(segment)), "{location}");
}
