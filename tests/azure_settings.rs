//! What the settings of `azureblob` may say, and what becomes of them: every row of the wire contract's table, the
//! forms that clients write, and the hosts that only look right.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use dicom_export::sink::azure::{Addressing, AzureBlobPolicy, AzureBlobProvider};
use dicom_export::sink::{CheckedSettings, Secret, SinkProvider};
use dicom_export::{BlobPath, Error, ErrorKind, OperationId, OperationSpec};
use serde_json::{Value, json};

const CONTAINER: &str = "https://dicomexport.blob.core.windows.net/export";
const SIGNATURE: &str = "c2lnbmF0dXJlK3NlY3JldA%3D%3D";
const SAS: &str = "sv=2022-11-02&sp=w&se=2030-01-01T00%3A00%3A00Z&sig=c2lnbmF0dXJlK3NlY3JldA%3D%3D";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn production() -> AzureBlobPolicy {
    AzureBlobPolicy::new()
}

fn development() -> AzureBlobPolicy {
    AzureBlobPolicy::development()
}

fn check(policy: AzureBlobPolicy, settings: Value) -> Result<CheckedSettings, Error> {
    AzureBlobProvider::new(policy).check(&settings)
}

/// The settings are accepted, as this container with this kind of credential.
#[track_caller]
fn accepted(policy: AzureBlobPolicy, settings: Value, location: &str, credential: &str) -> CheckedSettings {
    let checked = check(policy, settings).unwrap();
    assert_eq!(checked.location, location);
    assert_eq!(checked.public["credential"], credential);
    assert_eq!(checked.secret.is_some(), credential == "sas");
    checked
}

/// The settings are refused, at this pointer, without a word of their secrets.
#[track_caller]
fn refused(policy: AzureBlobPolicy, settings: Value, pointer: &str) -> String {
    let error = check(policy, settings).map(|checked| checked.location).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(error.pointer(), Some(pointer), "{error}");
    let said = format!("{error} {error:?} {error:#?}");
    for secret in [SIGNATURE, "sig=", "Eby8vdM02", "bm90IHRoZSBrZXk", "hunter2"] {
        assert!(!said.contains(secret), "{said}");
    }
    error.to_string()
}

fn uri(uri: &str) -> Value {
    json!({ "blobContainerUri": uri })
}

fn with_sas(uri: &str) -> Value {
    json!({ "blobContainerUri": format!("{uri}?{SAS}") })
}

fn by_identity(uri: &str) -> Value {
    json!({ "blobContainerUri": uri, "useManagedIdentity": true })
}

fn by_string(string: &str) -> Value {
    json!({ "connectionString": string, "blobContainerName": "export" })
}

#[test]
fn a_container_uri_with_a_sas() {
    let checked = accepted(production(), with_sas(CONTAINER), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn a_container_uri_with_the_managed_identity() {
    accepted(production(), by_identity(CONTAINER), CONTAINER, "managedIdentity");
}

#[test]
fn a_connection_string_with_a_sas() {
    let string =
        format!("BlobEndpoint=https://dicomexport.blob.core.windows.net/;SharedAccessSignature={SAS}");
    let checked = accepted(production(), by_string(&string), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn neither_a_uri_nor_both_of_string_and_name() {
    refused(production(), json!({}), "/blobContainerUri");
    refused(production(), json!({ "useManagedIdentity": true }), "/blobContainerUri");
    refused(production(), json!({ "connectionString": "UseDevelopmentStorage=true" }), "/blobContainerName");
    refused(production(), json!({ "blobContainerName": "export" }), "/connectionString");
}

#[test]
fn a_uri_together_with_a_string_or_a_name() {
    let string = "UseDevelopmentStorage=true";
    let both =
        json!({ "blobContainerUri": CONTAINER, "connectionString": string, "blobContainerName": "export" });
    refused(development(), both, "/connectionString");
    let string = json!({ "blobContainerUri": CONTAINER, "connectionString": string });
    refused(development(), string, "/connectionString");
    let name = json!({ "blobContainerUri": format!("{CONTAINER}?{SAS}"), "blobContainerName": "export" });
    refused(production(), name, "/blobContainerName");
}

#[test]
fn the_managed_identity_together_with_another_credential() {
    let mut string = by_string("UseDevelopmentStorage=true");
    string["useManagedIdentity"] = true.into();
    refused(development(), string, "/useManagedIdentity");
    let mut sas = with_sas(CONTAINER);
    sas["useManagedIdentity"] = true.into();
    refused(production(), sas, "/useManagedIdentity");
}

#[test]
fn account_keys_are_not_accepted() {
    let other = "bm90IHRoZSBrZXk=";
    for string in [
        format!("AccountName=dicomexport;AccountKey={other};EndpointSuffix=core.windows.net"),
        format!("DefaultEndpointsProtocol=https;AccountName=dicomexport;accountKEY={KEY}"),
        format!("AccountName=devstoreaccount1;AccountKey={other}"),
        format!("UseDevelopmentStorage=true;AccountKey={other}"),
        format!("BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;AccountKey={KEY}"),
    ] {
        let message = refused(development(), by_string(&string), "/connectionString");
        assert!(message.contains("account keys are not accepted"), "{message}");
    }
    let both = format!("AccountName=devstoreaccount1;AccountKey={KEY};SharedAccessSignature={SAS}");
    refused(development(), by_string(&both), "/connectionString");
}

#[test]
fn a_sas_where_the_policy_forbids_it() {
    let strict = || production().allow_sas(false);
    refused(strict(), with_sas(CONTAINER), "/blobContainerUri");
    let string = format!("AccountName=dicomexport;SharedAccessSignature={SAS}");
    refused(strict(), by_string(&string), "/connectionString");
    accepted(strict(), by_identity(CONTAINER), CONTAINER, "managedIdentity");
}

#[test]
fn no_credential_where_the_policy_forbids_it() {
    for policy in [production(), development()] {
        refused(policy.clone(), uri(CONTAINER), "/blobContainerUri");
        refused(policy.clone(), uri(&format!("{CONTAINER}?")), "/blobContainerUri");
        refused(policy, by_string("AccountName=dicomexport"), "/connectionString");
    }
    refused(development(), uri("http://127.0.0.1:10000/devstoreaccount1/export"), "/blobContainerUri");
    let open = || production().allow_public_access(true);
    accepted(open(), uri(CONTAINER), CONTAINER, "none");
    accepted(open(), by_string("AccountName=dicomexport"), CONTAINER, "none");
}

#[test]
fn hosts_that_the_policy_does_not_list() {
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
            refused(production().allow_public_access(true), settings, "/blobContainerUri");
        }
        let string = format!("BlobEndpoint={authority};SharedAccessSignature={SAS}");
        refused(production(), by_string(&string), "/connectionString");
    }
}

#[test]
fn text_that_url_parsers_would_bend_into_shape() {
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
fn accounts_of_every_cloud() {
    for host in [
        "dicomexport.blob.core.windows.net",
        "dicomexport.blob.core.usgovcloudapi.net",
        "dicomexport.blob.core.chinacloudapi.cn",
        "dicomexport.blob.core.cloudapi.de",
        "dicomexport.z07.blob.storage.azure.net",
        "abc.blob.core.windows.net",
        "a23456789012345678901234.blob.core.windows.net",
    ] {
        let container = format!("https://{host}/export");
        accepted(production(), by_identity(&container), &container, "managedIdentity");
        refused(production().only_allowed_hosts(), by_identity(&container), "/blobContainerUri");
    }
    for account in ["ab", "a234567890123456789012345", "dicom-export", "dicom_export"] {
        let container = format!("https://{account}.blob.core.windows.net/export");
        refused(production(), by_identity(&container), "/blobContainerUri");
    }
}

#[test]
fn forms_of_one_container_uri() {
    for given in [
        "https://dicomexport.blob.core.windows.net/export/",
        "https://dicomexport.blob.core.windows.net:443/export",
        "HTTPS://DicomExport.Blob.Core.Windows.Net/export",
        "  https://dicomexport.blob.core.windows.net/export\n",
        "https://dicomexport.blob.core.windows.net/export?",
    ] {
        accepted(production(), by_identity(given), CONTAINER, "managedIdentity");
    }
    let checked = accepted(production(), uri(&format!("{CONTAINER}/?{SAS}")), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn names_in_any_case_and_empty_values_as_if_absent() {
    for settings in [
        json!({ "BlobContainerUri": CONTAINER, "UseManagedIdentity": true }),
        json!({ "BLOBCONTAINERURI": CONTAINER, "usemanagedidentity": true }),
        json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": true, "connectionString": null,
                "BlobContainerName": null }),
        json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": true, "connectionString": "",
                "BlobContainerName": "" }),
    ] {
        accepted(production(), settings, CONTAINER, "managedIdentity");
    }
    for off in [json!(null), json!(""), json!(false)] {
        let settings = json!({ "blobContainerUri": format!("{CONTAINER}?{SAS}"), "useManagedIdentity": off });
        accepted(production(), settings, CONTAINER, "sas");
    }
    let emulator = json!({ "BlobContainerName": "export", "ConnectionString": "UseDevelopmentStorage=true",
                           "blobContainerUri": "" });
    accepted(development(), emulator, "http://127.0.0.1:10000/devstoreaccount1/export", "emulator");
    refused(production(), json!({ "blobContainerUri": "", "useManagedIdentity": true }), "/blobContainerUri");
}

#[test]
fn unknown_repeated_and_mistyped_properties() {
    let mut settings = with_sas(CONTAINER);
    settings["useManagedIdentiy"] = true.into();
    assert!(refused(production(), settings, "/useManagedIdentiy").contains("unknown"));
    let repeated = json!({ "blobContainerUri": CONTAINER, "BlobContainerUri": CONTAINER });
    let error = check(production(), repeated).unwrap_err();
    assert!(error.pointer().unwrap().eq_ignore_ascii_case("/blobContainerUri"), "{error:?}");
    refused(production(), json!({ "blobContainerUri": 7 }), "/blobContainerUri");
    refused(production(), json!({ "blobContainerUri": [CONTAINER] }), "/blobContainerUri");
    let text = json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": "true" });
    refused(production(), text, "/useManagedIdentity");
    let number = json!({ "blobContainerUri": CONTAINER, "useManagedIdentity": 1 });
    refused(production(), number, "/useManagedIdentity");
    refused(production(), json!("https://dicomexport.blob.core.windows.net/export"), "");
    refused(production(), json!(null), "");
}

#[test]
fn container_names() {
    for name in ["abc", "0ab", "a-b-c", &"x".repeat(63)] {
        let container = format!("https://dicomexport.blob.core.windows.net/{name}");
        accepted(production(), by_identity(&container), &container, "managedIdentity");
    }
    for name in [
        "ab",
        "Export",
        "exp_ort",
        "exp.ort",
        "-export",
        "export-",
        "ex--port",
        "$root",
        "$logs",
        &"x".repeat(64),
    ] {
        refused(
            production(),
            by_identity(&format!("https://dicomexport.blob.core.windows.net/{name}")),
            "/blobContainerUri",
        );
        let mut settings = by_string("UseDevelopmentStorage=true");
        settings["blobContainerName"] = name.into();
        refused(development(), settings, "/blobContainerName");
    }
    for path in ["", "/", "/export/folder", "/export/folder/"] {
        refused(
            production(),
            by_identity(&format!("https://dicomexport.blob.core.windows.net{path}")),
            "/blobContainerUri",
        );
    }
    let mut settings = by_string("UseDevelopmentStorage=true");
    settings["blobContainerName"] = "export/folder".into();
    refused(development(), settings, "/blobContainerName");
}

#[test]
fn queries_that_are_no_sas() {
    for query in [
        "restype=container",
        "sv=2022-11-02&sp=w",
        "sig=",
        "sig",
        "mysig=abc",
        "a b&sig=x",
        "comp=list&xsig=1",
        "sv&sig=x",
        "sv=%ff&sig=x",
        "sv=x y&sig=x",
        &format!("sv={}&sig=x", "x".repeat(8 << 10)),
    ] {
        let message = refused(production(), uri(&format!("{CONTAINER}?{query}")), "/blobContainerUri");
        assert!(message.contains("not a SAS"), "{message}");
        refused(production(), by_identity(&format!("{CONTAINER}?{query}")), "/blobContainerUri");
    }
}

#[test]
fn the_emulator() {
    let default = "http://127.0.0.1:10000/devstoreaccount1/export";
    for (string, location) in [
        ("UseDevelopmentStorage=true".to_owned(), default),
        ("usedevelopmentstorage=TRUE;".to_owned(), default),
        (" UseDevelopmentStorage = true ; ".to_owned(), default),
        ("AccountName=devstoreaccount1".to_owned(), default),
        (format!("DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY}"), default),
        (format!("accountkey={KEY};ACCOUNTNAME=devstoreaccount1;"), default),
        (format!("UseDevelopmentStorage=true;AccountName=devstoreaccount1;AccountKey={KEY}"), default),
        (
            "DefaultEndpointsProtocol=https;AccountName=devstoreaccount1".to_owned(),
            "https://127.0.0.1:10000/devstoreaccount1/export",
        ),
        (
            format!(
                "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};\
                 BlobEndpoint=http://127.0.0.1:41234/devstoreaccount1;\
                 QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;\
                 TableEndpoint=http://127.0.0.1:10002/devstoreaccount1;"
            ),
            "http://127.0.0.1:41234/devstoreaccount1/export",
        ),
        (
            format!(
                "AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint=http://localhost:41234/devstoreaccount1/"
            ),
            "http://localhost:41234/devstoreaccount1/export",
        ),
        (
            "AccountName=devstoreaccount1;BlobEndpoint=http://[::1]:41234/devstoreaccount1".to_owned(),
            "http://[::1]:41234/devstoreaccount1/export",
        ),
        (
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://localhost".to_owned(),
            "http://localhost:10000/devstoreaccount1/export",
        ),
        (
            "DevelopmentStorageProxyUri=https://127.0.0.2/;UseDevelopmentStorage=true".to_owned(),
            "https://127.0.0.2:10000/devstoreaccount1/export",
        ),
        (
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://[::1]".to_owned(),
            "http://[::1]:10000/devstoreaccount1/export",
        ),
        (
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.1:41234".to_owned(),
            "http://127.0.0.1:41234/devstoreaccount1/export",
        ),
    ] {
        let checked = accepted(development(), by_string(&string), location, "emulator");
        assert_eq!(checked.public["account"], "devstoreaccount1");
        refused(production(), by_string(&string), "/connectionString");
    }
}

#[test]
fn the_emulators_account_is_not_at_other_hosts() {
    for string in [
        "AccountName=devstoreaccount1;BlobEndpoint=https://devstoreaccount1.blob.core.windows.net",
        "AccountName=devstoreaccount1;EndpointSuffix=core.windows.net",
        "UseDevelopmentStorage=true;EndpointSuffix=core.windows.net",
        "AccountName=devstoreaccount1;BlobEndpoint=http://127.0.0.1:10000/other",
        "AccountName=devstoreaccount1;BlobEndpoint=http://127.0.0.1:10000",
        "AccountName=devstoreaccount1;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1/export",
        "AccountName=devstoreaccount1;BlobEndpoint=http://evil.com/devstoreaccount1",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://evil.com",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://user@127.0.0.1",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.1/path",
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=127.0.0.1",
    ] {
        refused(development(), by_string(string), "/connectionString");
    }
    let listed = || production().allow_host("http://azurite:10000", Addressing::Path).unwrap();
    let string = "AccountName=devstoreaccount1;BlobEndpoint=http://azurite:10000/devstoreaccount1";
    refused(listed(), by_string(string), "/connectionString");
    let listed = development().allow_host("http://azurite:10000", Addressing::Path).unwrap();
    accepted(listed, by_string(string), "http://azurite:10000/devstoreaccount1/export", "emulator");
}

#[test]
fn connection_strings_with_a_sas() {
    let suffix = "AccountName=dicomexport;EndpointSuffix=core.usgovcloudapi.net;SharedAccessSignature";
    let checked = accepted(
        production(),
        by_string(&format!("{suffix}=?{SAS}")),
        "https://dicomexport.blob.core.usgovcloudapi.net/export",
        "sas",
    );
    assert_eq!(checked.secret.unwrap().expose(), SAS);
    // As the portal shows it.
    let portal = format!(
        "BlobEndpoint=https://dicomexport.blob.core.windows.net/;QueueEndpoint=https://dicomexport.queue.core.windows.net/;\
         FileEndpoint=https://dicomexport.file.core.windows.net/;TableEndpoint=https://dicomexport.table.core.windows.net/;\
         SharedAccessSignature={SAS}"
    );
    accepted(production(), by_string(&portal), CONTAINER, "sas");
    let emulator =
        format!("BlobEndpoint=http://127.0.0.1:41234/devstoreaccount1;SharedAccessSignature={SAS}");
    accepted(development(), by_string(&emulator), "http://127.0.0.1:41234/devstoreaccount1/export", "sas");
    let emulator = format!("AccountName=devstoreaccount1;{emulator}");
    accepted(development(), by_string(&emulator), "http://127.0.0.1:41234/devstoreaccount1/export", "sas");
    let other = format!("BlobEndpoint=http://127.0.0.1:41234/other;SharedAccessSignature={SAS}");
    accepted(development(), by_string(&other), "http://127.0.0.1:41234/other/export", "sas");
    refused(production(), by_string(&other), "/connectionString");
}

#[test]
fn connection_strings_that_say_something_else() {
    for string in [
        "nonsense".to_owned(),
        "AccountName".to_owned(),
        ";".to_owned(),
        "EndpointSuffix=core.windows.net".to_owned(),
        format!("SharedAccessSignature={SAS}"),
        "UseDevelopmentStorage=false".to_owned(),
        "UseDevelopmentStorage=true;AccountName=dicomexport".to_owned(),
        "UseDevelopmentStorage=true;UseDevelopmentStorage=true".to_owned(),
        format!("AccountName=dicomexport;accountname=dicomexport;SharedAccessSignature={SAS}"),
        format!("AccountName=dicomexport;SharedAccessSignature={SAS};Colour=hunter2"),
        // The second half of a secret with a `;` in it must not be repeated as an unknown key.
        format!("AccountName=dicomexport;SharedAccessSignature={SAS};hunter2=x"),
        "AccountName=dicomexport;SharedAccessSignature=sv=2022-11-02".to_owned(),
        format!("AccountName=dicomexport;SharedAccessSignature={SAS}#"),
        format!("AccountName=DicomExport;SharedAccessSignature={SAS}"),
        format!("AccountName=evil.com/x;SharedAccessSignature={SAS}"),
        format!("AccountName=dicomexport;EndpointSuffix=evil.com;SharedAccessSignature={SAS}"),
        format!("AccountName=dicomexport;EndpointSuffix=core.windows.net/x;SharedAccessSignature={SAS}"),
        format!(
            "AccountName=dicomexport;EndpointSuffix=core.windows.net@evil.com;SharedAccessSignature={SAS}"
        ),
        format!("DefaultEndpointsProtocol=http;AccountName=dicomexport;SharedAccessSignature={SAS}"),
        format!("DefaultEndpointsProtocol=ftp;AccountName=dicomexport;SharedAccessSignature={SAS}"),
        format!(
            "AccountName=other;BlobEndpoint=https://dicomexport.blob.core.windows.net;SharedAccessSignature={SAS}"
        ),
        format!("BlobEndpoint=https://dicomexport.blob.core.windows.net/export;SharedAccessSignature={SAS}"),
        format!("BlobEndpoint=https://dicomexport.blob.core.windows.net?{SAS}"),
        "AccountName=dicomexport;DevelopmentStorageProxyUri=http://127.0.0.1".to_owned(),
        "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://localhost;\
         BlobEndpoint=http://127.0.0.1/devstoreaccount1"
            .to_owned(),
    ] {
        refused(development(), by_string(&string), "/connectionString");
    }
}

#[test]
fn loopback_in_development() {
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
fn guarantee_7_the_identity_goes_over_https_to_listed_hosts_only() {
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
fn hosts_that_the_operator_listed() {
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
fn what_is_no_host_cannot_be_listed() {
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

fn operation(checked: &CheckedSettings) -> OperationSpec {
    let spec = json!({
        "id": "df1ff476b83a4a3eaf11b1eac2e5ac56", "createdTime": "2026-01-01T00:00:00Z", "source": null,
        "destination": { "type": "azureblob", "location": checked.location, "settings": checked.public,
                         "hasSecret": checked.secret.is_some() },
        "errorHref": "", "context": { "partition": null, "caller": null, "attributes": {} }
    });
    serde_json::from_value(spec).unwrap()
}

#[tokio::test]
async fn a_stored_destination_opens_again() {
    let sas = with_sas(CONTAINER);
    let emulator = by_string("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.1:41234");
    let path = with_sas("http://127.0.0.1:41234/devstoreaccount1/export");
    let log = BlobPath::error_log(OperationId::from_u128(7));
    for settings in [sas, by_identity(CONTAINER), emulator, path] {
        let provider = AzureBlobProvider::new(development());
        let checked = provider.check(&settings).unwrap();
        let sink = provider.open(&operation(&checked), checked.secret.as_ref()).await.unwrap();
        assert_eq!(sink.url(&log), format!("{}/{log}", checked.location));
    }
}

#[tokio::test]
async fn a_missing_secret_is_said() {
    let provider = AzureBlobProvider::new(production());
    let checked = provider.check(&with_sas(CONTAINER)).unwrap();
    let error = provider.open(&operation(&checked), None).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsNeeded);
    assert_eq!(error.to_string(), "the destination's credentials are needed again");
}

#[tokio::test]
async fn a_stricter_policy_holds_for_operations_that_were_accepted_before_it() {
    let checked = check(development(), with_sas(CONTAINER)).unwrap();
    let strict = AzureBlobProvider::new(production().allow_sas(false));
    let error = strict.open(&operation(&checked), checked.secret.as_ref()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let checked = check(development(), by_string("UseDevelopmentStorage=true")).unwrap();
    let provider = AzureBlobProvider::new(production());
    let error = provider.open(&operation(&checked), None).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_damaged_stored_destination_is_an_error() {
    let provider = AzureBlobProvider::new(production());
    let uri = |uri: &str| json!({ "blobContainerUri": uri, "account": "a", "credential": "managedIdentity" });
    for public in [json!(null), json!({}), uri(""), uri("export"), uri("nonsense/export")] {
        let checked = CheckedSettings::new(CONTAINER, public);
        let error = provider.open(&operation(&checked), None).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[test]
fn secrets_show_nowhere() {
    let string = format!("AccountName=dicomexport;SharedAccessSignature={SAS}");
    for settings in [with_sas(CONTAINER), by_string(&string)] {
        let checked = check(production(), settings).unwrap();
        let shown = format!("{checked:?} {checked:#?} {} {}", checked.location, checked.public);
        assert!(!shown.contains("sig") && !shown.contains(SIGNATURE), "{shown}");
    }
    assert!(!format!("{:?}", Secret::new(SAS)).contains("sig"));
    let policy = production().with_root_certificate("-----BEGIN CERTIFICATE-----\n");
    let shown = format!("{:?}", AzureBlobProvider::new(policy));
    assert!(shown.contains("root_certificates: 1"), "{shown}");
}
