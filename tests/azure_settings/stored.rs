//! Stored destinations.

use crate::*;

pub(crate) fn operation(checked: &ValidatedSettings) -> OperationSpec {
    let spec = json!({
        "id": "df1ff476b83a4a3eaf11b1eac2e5ac56", "createdTime": "2026-01-01T00:00:00Z", "source": null,
        "destination": { "type": "azureblob", "location": checked.location, "settings": checked.public,
                         "hasSecret": checked.secret.is_some() },
        "errorHref": "", "context": { "partition": null, "caller": null, "attributes": {} }
    });
    serde_json::from_value(spec).unwrap()
}

#[tokio::test]
async fn stored_destination_can_be_opened() {
    let sas = with_sas(CONTAINER);
    let emulator = by_string("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://127.0.0.1:41234");
    let path = with_sas("http://127.0.0.1:41234/devstoreaccount1/export");
    let log = BlobPath::error_log(OperationId::from_u128(7));
    for settings in [sas, by_identity(CONTAINER), emulator, path] {
        let provider = AzureBlobProvider::new(development());
        let checked = provider.validate(&settings).unwrap();
        let sink = provider.open(&operation(&checked), checked.secret.as_ref()).await.unwrap();
        assert_eq!(sink.url(&log), format!("{}/{log}", checked.location));
    }
}

#[tokio::test]
async fn missing_secret_is_credentials_needed() {
    let provider = AzureBlobProvider::new(production());
    let checked = provider.validate(&with_sas(CONTAINER)).unwrap();
    let error = provider.open(&operation(&checked), None).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CredentialsNeeded);
    assert_eq!(error.to_string(), "the destination's credentials are needed again");
}

#[tokio::test]
async fn stricter_policy_applies_to_stored_operations() {
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
async fn damaged_stored_destination_is_an_error() {
    let provider = AzureBlobProvider::new(production());
    let uri = |uri: &str| json!({ "blobContainerUri": uri, "account": "a", "credential": "managedIdentity" });
    for public in [json!(null), json!({}), uri(""), uri("export"), uri("nonsense/export")] {
        let checked = ValidatedSettings::new(CONTAINER, public);
        let error = provider.open(&operation(&checked), None).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}

#[test]
fn debug_output_has_no_secret() {
    let string = format!("AccountName=dicomexport;SharedAccessSignature={SAS}");
    for settings in [with_sas(CONTAINER), by_string(&string)] {
        let checked = check(production(), settings).unwrap();
        let printed = format!("{checked:?} {checked:#?} {} {}", checked.location, checked.public);
        assert!(!printed.contains("sig") && !printed.contains(SIGNATURE), "{printed}");
    }
    assert!(!format!("{:?}", Secret::new(SAS)).contains("sig"));
    let policy = production().with_root_certificate("-----BEGIN CERTIFICATE-----\n");
    let printed = format!("{:?}", AzureBlobProvider::new(policy));
    assert!(printed.contains("root_certificates: 1"), "{printed}");
}
