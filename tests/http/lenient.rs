//! Every form in which published clients write a request, and the rows of the settings table.

use dicom_export::http::HttpOptions;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Gated, Server, archive, azureblob, engine, everything, of};

#[tokio::test]
async fn every_lenient_form_is_accepted() {
    let sink = Gated::open();
    let server = Server::of(&engine(archive(3), sink), HttpOptions::new()).await;
    let source = json!({ "type": "identifiers", "settings": { "values": ["1.2.0"] } });
    let forms = [
        (3, of(json!(["1.2.0"]))),
        // The first document's example spells the destination's type so, the second one the source.
        (
            3,
            json!({ "source": source, "destination": { "type": "azureBlob", "settings": azureblob()["settings"] } }),
        ),
        (3, json!({ "sources": source, "destination": azureblob() })),
        (
            3,
            json!({ "SOURCE": { "Type": "Identifiers", "Settings": { "Values": ["1.2.0"] } },
                    "Destination": { "TYPE": "AZUREBLOB", "Settings": {} } }),
        ),
        (9, everything()),
        (9, json!({ "source": null, "destination": azureblob() })),
        // Repeats, what another covers, white space.
        (3, of(json!(["1.2.0", "1.2.0", "1.2.0/1.2.0.0", " 1.2.0 / 1.2.0.0 / 1.2.0.0.1 "]))),
    ];
    for (exported, form) in forms {
        let id = server.start("/v1/export", &form).await;
        let ended = server.ended(&format!("/v1/operations/{id}")).await;
        assert_eq!(ended["results"]["exported"], exported, "{form}");
        assert_eq!(ended["results"]["skipped"], 0, "{form}");
    }
    for kind in
        ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
    {
        let request = server.request(Method::POST, "/export").header("content-type", kind);
        let answer = server.send(request.body(everything().to_string())).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{kind}");
    }
}

#[tokio::test]
async fn what_could_export_the_wrong_data_is_refused_where_it_stands() {
    let server = Server::of(&engine(archive(3), Gated::open()), HttpOptions::new()).await;
    let refused = [
        ("/sorce", json!({ "sorce": null, "destination": azureblob() })),
        ("/sources", json!({ "source": null, "sources": null, "destination": azureblob() })),
        ("/source/type", json!({ "source": { "type": "query" }, "destination": azureblob() })),
        ("/source/settings/values", of(json!([]))),
        ("/source/settings/values", of(json!(null))),
        (
            "/source/settings/values",
            json!({ "source": { "type": "identifiers" }, "destination": azureblob() }),
        ),
        ("/source/settings/values/1", of(json!(["1.2", 3]))),
        ("/source/settings/values/1", of(json!(["1.2", "1.2/3/4/5"]))),
        ("/source/settings/values/0", of(json!(["1.2.x"]))),
        ("/destination", json!({ "source": null })),
        ("/destination/type", json!({ "destination": { "settings": {} } })),
        ("/destination/type", json!({ "destination": { "type": "ftp", "settings": {} } })),
        ("/destination/settings", json!({ "destination": { "type": "azureblob", "settings": [] } })),
        ("", json!([])),
        ("", json!(null)),
    ];
    for (pointer, body) in refused {
        for path in ["/export", "/v1/export", "/v2/export"] {
            server.post(path, &body).await.problem_at(400, pointer);
        }
    }
    let twice = server.request(Method::POST, "/export").header("content-type", "application/json");
    let twice = server
        .send(twice.body(format!(r#"{{"destination": {}, "source": 1, "Source": null}}"#, azureblob())))
        .await;
    twice.problem(400);
}

#[tokio::test]
async fn the_rows_of_the_settings_table() {
    const SECRET: &str = "c2VjcmV0LXNpZ25hdHVyZQ";
    let policy = AzureBlobPolicy::new();
    let server = Server::of(&engine(archive(3), AzureBlobProvider::new(policy)), HttpOptions::new()).await;
    let uri = "https://a.blob.core.windows.net/export";
    let with_sas = format!("{uri}?sv=2022-11-02&sr=c&sp=cw&sig={SECRET}");
    let connection =
        format!("BlobEndpoint=https://a.blob.core.windows.net;SharedAccessSignature=sv=1&sig={SECRET}");
    let with_key = format!(
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;EndpointSuffix=core.windows.net"
    );
    let refused = [
        json!({}),
        json!({ "blobContainerName": "export" }),
        json!({ "connectionString": connection }),
        json!({ "blobContainerUri": "", "connectionString": null }),
        json!({ "blobContainerUri": with_sas, "connectionString": connection }),
        json!({ "blobContainerUri": with_sas, "blobContainerName": "export" }),
        json!({ "connectionString": connection, "blobContainerName": "export", "useManagedIdentity": true }),
        json!({ "blobContainerUri": with_sas, "useManagedIdentity": true }),
        json!({ "connectionString": with_key, "blobContainerName": "export" }),
        // No credential, a host that is not listed, the emulator in production, what cannot be a container.
        json!({ "blobContainerUri": uri }),
        json!({ "blobContainerUri": format!("https://elsewhere.example/export?sig={SECRET}") }),
        json!({ "blobContainerUri": "https://elsewhere.example/export", "useManagedIdentity": true }),
        json!({ "connectionString": "UseDevelopmentStorage=true", "blobContainerName": "export" }),
        json!({ "blobContainerUri": format!("{uri}/deeper?sig={SECRET}") }),
        json!({ "blobContainerUri": 1 }),
        json!({ "blobContainerUri": uri, "useManagedIdentity": "yes" }),
        json!({ "blobContainerUri": with_sas, "overwrite": true }),
    ];
    for settings in refused {
        let body: Value = json!({ "destination": { "type": "azureblob", "settings": settings } });
        let answer = server.post("/v1/export", &body).await;
        answer.problem(400);
        let pointer = answer.body["pointer"].as_str().expect("a pointer");
        assert!(pointer.starts_with("/destination/settings"), "{settings}: {pointer}");
        assert!(!answer.body.to_string().contains(SECRET), "{answer:?}");
    }
    let no_sas = AzureBlobProvider::new(AzureBlobPolicy::new().allow_sas(false));
    let server = Server::of(&engine(archive(3), no_sas), HttpOptions::new()).await;
    let body =
        json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": with_sas } } });
    server.post("/v1/export", &body).await.problem_at(400, "/destination/settings/blobContainerUri");
}
