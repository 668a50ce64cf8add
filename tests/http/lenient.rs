//! The forms in which published clients write requests, and the rules for the settings of `azureblob`.

use dicom_export::http::HttpOptions;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{GatedSink, Server, archive, azure_destination, engine, export_everything, export_of};

#[tokio::test]
async fn every_lenient_form_is_accepted() {
    let sink = GatedSink::new(true);
    let server = Server::start(&engine(archive(3), sink), HttpOptions::new()).await;
    let source = json!({ "type": "identifiers", "settings": { "values": ["1.2.0"] } });
    let forms = [
        (3, export_of(json!(["1.2.0"]))),
        // Spellings from examples in the published documents.
        (
            3,
            json!({ "source": source, "destination": { "type": "azureBlob", "settings": azure_destination()["settings"] } }),
        ),
        (3, json!({ "sources": source, "destination": azure_destination() })),
        (
            3,
            json!({ "SOURCE": { "Type": "Identifiers", "Settings": { "Values": ["1.2.0"] } },
                    "Destination": { "TYPE": "AZUREBLOB", "Settings": {} } }),
        ),
        (9, export_everything()),
        (9, json!({ "source": null, "destination": azure_destination() })),
        // Repeated and covered identifiers, white space.
        (3, export_of(json!(["1.2.0", "1.2.0", "1.2.0/1.2.0.0", " 1.2.0 / 1.2.0.0 / 1.2.0.0.1 "]))),
    ];
    for (exported, form) in forms {
        let id = server.export("/v1/export", &form).await;
        let ended = server.wait(&format!("/v1/operations/{id}")).await;
        assert_eq!(ended["results"]["exported"], exported, "{form}");
        assert_eq!(ended["results"]["skipped"], 0, "{form}");
    }
    for kind in
        ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
    {
        let request = server.request(Method::POST, "/export").header("content-type", kind);
        let response = server.send(request.body(export_everything().to_string())).await;
        assert_eq!(response.status, StatusCode::ACCEPTED, "{kind}");
    }
}

#[tokio::test]
async fn an_ambiguous_request_is_refused_with_a_pointer() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let invalid = [
        ("/sorce", json!({ "sorce": null, "destination": azure_destination() })),
        ("/sources", json!({ "source": null, "sources": null, "destination": azure_destination() })),
        ("/source/type", json!({ "source": { "type": "query" }, "destination": azure_destination() })),
        ("/source/settings/values", export_of(json!([]))),
        ("/source/settings/values", export_of(json!(null))),
        (
            "/source/settings/values",
            json!({ "source": { "type": "identifiers" }, "destination": azure_destination() }),
        ),
        ("/source/settings/values/1", export_of(json!(["1.2", 3]))),
        ("/source/settings/values/1", export_of(json!(["1.2", "1.2/3/4/5"]))),
        ("/source/settings/values/0", export_of(json!(["1.2.x"]))),
        ("/destination", json!({ "source": null })),
        ("/destination/type", json!({ "destination": { "settings": {} } })),
        ("/destination/type", json!({ "destination": { "type": "ftp", "settings": {} } })),
        ("/destination/settings", json!({ "destination": { "type": "azureblob", "settings": [] } })),
        ("", json!([])),
        ("", json!(null)),
    ];
    for (pointer, body) in invalid {
        for path in ["/export", "/v1/export", "/v2/export"] {
            server.post(path, &body).await.assert_problem_at(400, pointer);
        }
    }
    let twice = server.request(Method::POST, "/export").header("content-type", "application/json");
    let twice = server
        .send(
            twice.body(format!(r#"{{"destination": {}, "source": 1, "Source": null}}"#, azure_destination())),
        )
        .await;
    twice.assert_problem(400);
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    const SECRET: &str = "c2VjcmV0LXNpZ25hdHVyZQ";
    let policy = AzureBlobPolicy::new();
    let server = Server::start(&engine(archive(3), AzureBlobProvider::new(policy)), HttpOptions::new()).await;
    let uri = "https://a.blob.core.windows.net/export";
    let with_sas = format!("{uri}?sv=2022-11-02&sr=c&sp=cw&sig={SECRET}");
    let connection =
        format!("BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=1&sig={SECRET}");
    let with_key = format!(
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;EndpointSuffix=core.windows.net"
    );
    let invalid = [
        json!({}),
        json!({ "blobContainerName": "export" }),
        json!({ "connectionString": connection }),
        json!({ "blobContainerUri": "", "connectionString": null }),
        json!({ "blobContainerUri": with_sas, "connectionString": connection }),
        json!({ "blobContainerUri": with_sas, "blobContainerName": "export" }),
        json!({ "connectionString": connection, "blobContainerName": "export", "useManagedIdentity": true }),
        json!({ "blobContainerUri": with_sas, "useManagedIdentity": true }),
        json!({ "connectionString": with_key, "blobContainerName": "export" }),
        // No credential, an unlisted host, the emulator in production, invalid container URIs.
        json!({ "blobContainerUri": uri }),
        json!({ "blobContainerUri": format!("https://elsewhere.example/export?sig={SECRET}") }),
        json!({ "blobContainerUri": "https://elsewhere.example/export", "useManagedIdentity": true }),
        json!({ "connectionString": "UseDevelopmentStorage=true", "blobContainerName": "export" }),
        json!({ "blobContainerUri": format!("{uri}/deeper?sig={SECRET}") }),
        json!({ "blobContainerUri": 1 }),
        json!({ "blobContainerUri": uri, "useManagedIdentity": "yes" }),
        json!({ "blobContainerUri": with_sas, "overwrite": true }),
    ];
    for settings in invalid {
        let body: Value = json!({ "destination": { "type": "azureblob", "settings": settings } });
        let response = server.post("/v1/export", &body).await;
        response.assert_problem(400);
        let pointer = response.body["pointer"].as_str().expect("a pointer");
        assert!(pointer.starts_with("/destination/settings"), "{settings}: {pointer}");
        assert!(!response.body.to_string().contains(SECRET), "{response:?}");
    }
    let no_sas = AzureBlobProvider::new(AzureBlobPolicy::new().allow_sas(false));
    let server = Server::start(&engine(archive(3), no_sas), HttpOptions::new()).await;
    let body =
        json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": with_sas } } });
    server.post("/v1/export", &body).await.assert_problem_at(400, "/destination/settings/blobContainerUri");
}
