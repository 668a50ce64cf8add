//! Allowed hosts.

use dicom_export::BlobSink;
use dicom_export::sink::azure::AzureBlobSink;

use crate::*;

#[test]
fn unlisted_hosts_are_refused() {
    for authority in [
        "https://blob.core.windows.net",
        "https://blob.core.windows.net.evil.com",
        "https://dicomexport.blob.core.windows.net.evil.com",
        "https://evilblob.core.windows.net",
        "https://dicomexport.evilblob.core.windows.net",
        "https://dicomexport.blob.core.windows.net.",
        "https://dicomexport..blob.core.windows.net",
        "https://.blob.core.windows.net",
        "https://a.dicomexport.blob.core.windows.net",
        "https://dicomexport.privatelink.blob.core.windows.net",
        "https://dicomexport-secondary.blob.core.windows.net",
        "https://dicomexport.dfs.core.windows.net",
        "https://dicomexport.z1.blob.storage.azure.net",
        "https://dicomexport.zzz.blob.storage.azure.net",
        "https://dicomexport.blob.storage.azure.net",
        "https://dicomexport.blob.core.windows.net:8443",
        "https://dicomexport.blob.core.windows.net:80",
        "http://dicomexport.blob.core.windows.net",
        "http://dicomexport.blob.core.windows.net:443",
        "https://xn--dicomexport-9ob.blob.core.windows.net",
        "https://evil.com",
        "https://localhost",
        "https://127.0.0.1:10000",
        "https://2130706433",
        "https://20.60.1.1",
        "https://[::1]",
        "https://[2603:1030::1]",
        "https://169.254.169.254",
    ] {
        let container = format!("{authority}/export");
        for settings in [with_sas(&container), by_identity(&container), uri(&container)] {
            refused(production().allow_anonymous(true), settings, "/blobContainerUri");
        }
        let string = format!("BlobEndpoint={authority};SharedAccessSignature={SAS}");
        refused(production(), by_string(&string), "/connectionString");
    }
}

#[test]
fn uris_that_a_parser_would_normalize_are_refused() {
    for container in [
        "https://user@dicomexport.blob.core.windows.net/export",
        "https://user:hunter2@dicomexport.blob.core.windows.net/export",
        "https://@dicomexport.blob.core.windows.net/export",
        "https://dicomexport.blob.core.windows.net@evil.com/export",
        "https://evil.com#@dicomexport.blob.core.windows.net/export",
        "https://evil.com\\@dicomexport.blob.core.windows.net/export",
        "https://evil.com\\.blob.core.windows.net/export",
        "https://evil.com%2f.blob.core.windows.net/export",
        "https://dicomexport%2eblob.core.windows.net/export",
        "https://dicomexport.blob.core.windows.net/a/../export",
        "https://dicomexport.blob.core.windows.net/./export",
        "https://dicomexport.blob.core.windows.net//export",
        "https://dicomexport.blob.core.windows.net/export//",
        "https://dicomexport.blob.core.windows.net/%65xport",
        "https://dicomexport.blob.core.\twindows.net/export",
        "https://dicomexport.blob.core.windows.net/exp\nort",
        "https:/dicomexport.blob.core.windows.net/export",
        "https:dicomexport.blob.core.windows.net/export",
        "//dicomexport.blob.core.windows.net/export",
        "dicomexport.blob.core.windows.net/export",
        "https:///dicomexport.blob.core.windows.net/export",
        "https://dicomexport。blob.core.windows.net/export",
        "https://ⅾicomexport.blob.core.windows.net/export",
        "ftp://dicomexport.blob.core.windows.net/export",
        "file:///export",
        "https://dicomexport.blob.core.windows.net/export#",
    ] {
        refused(production(), with_sas(container), "/blobContainerUri");
        refused(production(), by_identity(container), "/blobContainerUri");
    }
    refused(production(), with_sas(&format!("{CONTAINER}#")), "/blobContainerUri");
    refused(production(), uri(&format!("{CONTAINER}?{SAS}#part")), "/blobContainerUri");
}

#[test]
fn accounts_of_every_cloud_are_accepted() {
    for host in [
        "dicomexport.blob.core.windows.net",
        "dicomexport.blob.core.usgovcloudapi.net",
        "dicomexport.blob.core.chinacloudapi.cn",
        "dicomexport.blob.core.cloudapi.de",
        "dicomexport.z07.blob.storage.azure.net",
        // Network routing preference ("Network routing preference for Azure Storage").
        "dicomexport-internetrouting.blob.core.windows.net",
        "dicomexport-microsoftrouting.blob.core.windows.net",
        "dicomexport-internetrouting.blob.core.usgovcloudapi.net",
        "dicomexport-internetrouting.z07.blob.storage.azure.net",
        "dicomexport-microsoftrouting.z99.blob.storage.azure.net",
        "a23456789012345678901234-microsoftrouting.blob.core.windows.net",
        "abc.blob.core.windows.net",
        "a23456789012345678901234.blob.core.windows.net",
    ] {
        let container = format!("https://{host}/export");
        let checked = accepted(production(), by_identity(&container), &container, "managedIdentity");
        let (account, _) = host.split_once(['-', '.']).unwrap();
        assert_eq!(checked.public["account"], account);
        refused(production().only_allowed_hosts(), by_identity(&container), "/blobContainerUri");
        // The portal's connection strings name the account beside the endpoint of the routing preference.
        let string = format!("AccountName={account};BlobEndpoint=https://{host};SharedAccessSignature={SAS}");
        accepted(production(), by_string(&string), &container, "sas");
        let other = format!("AccountName=other;BlobEndpoint=https://{host};SharedAccessSignature={SAS}");
        refused(production(), by_string(&other), "/connectionString");
    }
    for account in [
        "ab",
        "a234567890123456789012345",
        "dicom-export",
        "dicom_export",
        "-internetrouting",
        "ab-internetrouting",
        "dicomexport-routing",
        "dicomexport-secondary-internetrouting",
        "dicomexport-internetrouting-microsoftrouting",
        "dicomexport-internetrouting-secondary",
        "a234567890123456789012345-microsoftrouting",
        "dicomexport.internetrouting",
    ] {
        let container = format!("https://{account}.blob.core.windows.net/export");
        refused(production(), by_identity(&container), "/blobContainerUri");
    }
}

#[test]
fn loopback_hosts_are_accepted_in_development_only() {
    for origin in ["http://127.0.0.1:41234", "https://127.0.0.1:41234", "http://localhost", "http://[::1]:1"]
    {
        let container = format!("{origin}/devstoreaccount1/export");
        accepted(development(), with_sas(&container), &container, "sas");
        refused(production(), with_sas(&container), "/blobContainerUri");
        for path in ["", "/devstoreaccount1", "/devstoreaccount1/export/folder", "/Account/export"] {
            refused(development(), with_sas(&format!("{origin}{path}")), "/blobContainerUri");
        }
    }
    for origin in
        ["http://127.0.0.1.evil.com", "http://localhost.evil.com", "http://10.0.0.1", "http://0.0.0.0"]
    {
        refused(development(), with_sas(&format!("{origin}/devstoreaccount1/export")), "/blobContainerUri");
    }
}

#[test]
fn guarantee_7_identity_is_sent_over_https_to_listed_hosts_only() {
    let local = "https://127.0.0.1:41234/devstoreaccount1/export";
    refused(
        development(),
        by_identity("http://127.0.0.1:41234/devstoreaccount1/export"),
        "/blobContainerUri",
    );
    refused(development(), by_identity(local), "/blobContainerUri");
    let trusting = || development().with_root_certificate("-----BEGIN CERTIFICATE-----\n");
    accepted(trusting(), by_identity(local), local, "managedIdentity");
    refused(trusting(), by_identity("http://127.0.0.1:41234/devstoreaccount1/export"), "/blobContainerUri");
    let listed = production().allow_host("http://azurite:10000", Addressing::Path).unwrap();
    refused(listed, by_identity("http://azurite:10000/devstoreaccount1/export"), "/blobContainerUri");
}

#[test]
fn listed_hosts_are_matched_exactly() {
    let policy = || {
        production()
            .allow_host("Blobs.Hospital.Example", Addressing::Domain)
            .and_then(|policy| policy.allow_host("blob.stack.example:8443", Addressing::Subdomain))
            .and_then(|policy| policy.allow_host("10.1.2.3:8443", Addressing::Path))
            .unwrap()
    };
    for container in [
        "https://blobs.hospital.example/export",
        "https://dicomexport.blob.stack.example:8443/export",
        "https://10.1.2.3:8443/dicomexport/export",
    ] {
        accepted(policy(), by_identity(container), container, "managedIdentity");
        accepted(policy(), with_sas(container), container, "sas");
        accepted(policy().only_allowed_hosts(), with_sas(container), container, "sas");
        refused(production(), with_sas(container), "/blobContainerUri");
    }
    for container in [
        "https://blobs.hospital.example.evil.com/export",
        "https://evilblobs.hospital.example/export",
        "https://a.blobs.hospital.example/export",
        "https://blobs.hospital.example./export",
        "https://blobs.hospital.example:8443/export",
        "http://blobs.hospital.example/export",
        "https://blobs.hospital.example/dicomexport/export",
        "https://blob.stack.example:8443/export",
        "https://a.b.blob.stack.example:8443/export",
        "https://dicomexport.blob.stack.example/export",
        "https://10.1.2.3/dicomexport/export",
        "https://10.1.2.3:8443/export",
        "https://10.1.2.4:8443/dicomexport/export",
    ] {
        refused(policy(), by_identity(container), "/blobContainerUri");
    }
    let string = format!(
        "AccountName=dicomexport;BlobEndpoint=https://blobs.hospital.example;SharedAccessSignature={SAS}"
    );
    let checked = accepted(policy(), by_string(&string), "https://blobs.hospital.example/export", "sas");
    assert_eq!(checked.public["account"], "dicomexport");
}

#[test]
fn text_that_is_not_a_host_cannot_be_listed() {
    for host in [
        "",
        "https://",
        "a/b",
        "user@host",
        "host?x",
        "host#x",
        "ftp://host",
        "host:port",
        "a b",
        "https://a\\b",
    ] {
        let error = production().allow_host(host, Addressing::Domain).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{host}");
    }
    let error = production().allow_host("10.1.2.3", Addressing::Subdomain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// The limits of Azure apply to an account, whichever of its endpoints requests use.
#[test]
fn endpoints_of_an_account_share_a_throttle_key() {
    let key = |host: &str| {
        let settings = with_sas(&format!("{host}/export"));
        AzureBlobSink::from_settings(&settings, &development()).unwrap().throttle_key()
    };
    let account = key("https://dicomexport.blob.core.windows.net");
    assert_eq!(key("https://dicomexport-internetrouting.blob.core.windows.net"), account);
    assert_eq!(key("https://dicomexport-microsoftrouting.blob.core.windows.net"), account);
    let others = [
        "https://dicomexport2.blob.core.windows.net",
        "https://dicomexport.blob.core.usgovcloudapi.net",
        "https://dicomexport.z01.blob.storage.azure.net",
        "http://127.0.0.1:10000/dicomexport",
        "http://127.0.0.1:10001/dicomexport",
    ];
    let mut keys = vec![account];
    for other in others {
        assert!(!keys.contains(&key(other)), "{other}");
        keys.push(key(other));
    }
}
