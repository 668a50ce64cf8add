//! The settings of `azureblob`: every row of the wire contract's table, the forms that clients write, and hosts that only
//! resemble allowed ones.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod connection_strings;
mod forms;
mod hosts;
mod sas;
mod stored;

use dicom_export::sink::azure::{Addressing, AzureBlobPolicy, AzureBlobProvider};
use dicom_export::sink::{Secret, SinkProvider, ValidatedSettings};
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

fn check(policy: AzureBlobPolicy, settings: Value) -> Result<ValidatedSettings, Error> {
    AzureBlobProvider::new(policy).validate(&settings)
}

/// Verifies that the settings are accepted, with this location and kind of credential.
#[track_caller]
fn accepted(policy: AzureBlobPolicy, settings: Value, location: &str, credential: &str) -> ValidatedSettings {
    let checked = check(policy, settings).unwrap();
    assert_eq!(checked.location, location);
    assert_eq!(checked.public["credential"], credential);
    assert_eq!(checked.secret.is_some(), credential == "sas");
    checked
}

/// Verifies that the settings are refused at this pointer, with an error that contains no secret.
#[track_caller]
fn refused(policy: AzureBlobPolicy, settings: Value, pointer: &str) -> String {
    let error = check(policy, settings).map(|checked| checked.location).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(error.pointer(), Some(pointer), "{error}");
    let printed = format!("{error} {error:?} {error:#?}");
    for secret in [SIGNATURE, "sig=", "Eby8vdM02", "bm90IHRoZSBrZXk", "hunter2"] {
        assert!(!printed.contains(secret), "{printed}");
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
fn container_uri_with_a_sas_is_accepted() {
    let checked = accepted(production(), with_sas(CONTAINER), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn container_uri_with_the_managed_identity_is_accepted() {
    accepted(production(), by_identity(CONTAINER), CONTAINER, "managedIdentity");
}

#[test]
fn connection_string_with_a_sas_is_accepted() {
    let string =
        format!("BlobEndpoint=https://dicomexport.blob.core.windows.net/;SharedAccessSignature={SAS}");
    let checked = accepted(production(), by_string(&string), CONTAINER, "sas");
    assert_eq!(checked.secret.unwrap().expose(), SAS);
}

#[test]
fn missing_container_is_refused() {
    refused(production(), json!({}), "/blobContainerUri");
    refused(production(), json!({ "useManagedIdentity": true }), "/blobContainerUri");
    refused(production(), json!({ "connectionString": "UseDevelopmentStorage=true" }), "/blobContainerName");
    refused(production(), json!({ "blobContainerName": "export" }), "/connectionString");
}

#[test]
fn uri_combined_with_a_string_or_a_name_is_refused() {
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
fn managed_identity_combined_with_another_credential_is_refused() {
    let mut string = by_string("UseDevelopmentStorage=true");
    string["useManagedIdentity"] = true.into();
    refused(development(), string, "/useManagedIdentity");
    let mut sas = with_sas(CONTAINER);
    sas["useManagedIdentity"] = true.into();
    refused(production(), sas, "/useManagedIdentity");
}

#[test]
fn account_keys_are_refused() {
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
fn sas_is_refused_if_the_policy_forbids_it() {
    let strict = || production().allow_sas(false);
    refused(strict(), with_sas(CONTAINER), "/blobContainerUri");
    let string = format!("AccountName=dicomexport;SharedAccessSignature={SAS}");
    refused(strict(), by_string(&string), "/connectionString");
    accepted(strict(), by_identity(CONTAINER), CONTAINER, "managedIdentity");
}

#[test]
fn missing_credential_is_refused_unless_the_policy_allows_it() {
    for policy in [production(), development()] {
        refused(policy.clone(), uri(CONTAINER), "/blobContainerUri");
        refused(policy.clone(), uri(&format!("{CONTAINER}?")), "/blobContainerUri");
        refused(policy, by_string("AccountName=dicomexport"), "/connectionString");
    }
    refused(development(), uri("http://127.0.0.1:10000/devstoreaccount1/export"), "/blobContainerUri");
    let open = || production().allow_anonymous(true);
    accepted(open(), uri(CONTAINER), CONTAINER, "none");
    accepted(open(), by_string("AccountName=dicomexport"), CONTAINER, "none");
}
