//! Connection strings, including those of the emulator.

use crate::*;

#[test]
fn connection_strings_of_the_emulator_are_accepted() {
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
fn emulator_account_at_another_host_is_refused() {
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
fn connection_strings_with_a_sas_are_accepted() {
    let suffix = "AccountName=dicomexport;EndpointSuffix=core.usgovcloudapi.net;SharedAccessSignature";
    let checked = accepted(
        production(),
        by_string(&format!("{suffix}=?{SAS}")),
        "https://dicomexport.blob.core.usgovcloudapi.net/export",
        "sas",
    );
    assert_eq!(checked.secret.unwrap().expose(), SAS);
    // In the form of the portal.
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
fn invalid_connection_strings_are_refused() {
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
        // The second half of a secret that contains a `;` must not be repeated as an unknown key.
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
