//! The OpenAPI document. Every test in this binary checks its responses against it.

use std::sync::Arc;

use dicom_export::http::{self, ApiDescription};
use dicom_export::sink::ObjectStoreProvider;
use dicom_export::sink::azure::AzureBlobProvider;
use dicom_export::{DestinationType, Error, ExportEngine, ExportService, MemorySink, MemorySource};
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::lifecycle::reference_case;
use crate::support::{DOCUMENT, check, export_everything};

#[test]
fn the_copy_in_the_repository_is_up_to_date() {
    let mut text = serde_json::to_string_pretty(&*DOCUMENT).unwrap();
    text.push('\n');
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    if std::env::var_os("DICOM_EXPORT_WRITE_OPENAPI").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let copy = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        copy == text,
        "docs/openapi.json is out of date: run this test with DICOM_EXPORT_WRITE_OPENAPI=1"
    );
}

#[test]
fn it_is_openapi_3_1_with_valid_references_and_unique_operations() {
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
    let paths = DOCUMENT["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 18);
    let mut ids = Vec::new();
    for item in paths.values() {
        for operation in item.as_object().unwrap().values() {
            ids.push(operation["operationId"].as_str().unwrap());
        }
    }
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), all), (24, 24));
    let text = DOCUMENT.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{pointer}");
    }
    for item in paths.values().flat_map(|item| item.as_object().unwrap().values()) {
        let links = item["responses"]["202"]["links"].as_object();
        for link in links.into_iter().flat_map(|links| links.values()) {
            assert!(ids.contains(&link["operationId"].as_str().unwrap()));
        }
    }
}

#[test]
fn a_description_has_the_paths_parameters_and_destination_types_of_its_router() {
    let paths = |description: ApiDescription| {
        let document = serde_json::to_value(description.build()).unwrap();
        document["paths"].as_object().unwrap().clone()
    };
    let nested = paths(ApiDescription::routes().nest("/tenants/{tenant}/").nest("/api"));
    let operation = &nested["/api/tenants/{tenant}/operations/{operationId}/resume"]["post"];
    let names: Vec<_> = operation["parameters"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["tenant", "operationId"]);
    assert_eq!(nested.len(), 6);
    let list = &nested["/api/tenants/{tenant}/operations"]["get"]["parameters"];
    let names: Vec<_> = list.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["tenant", "limit", "continuationToken", "status"]);
    let partitioned = paths(ApiDescription::partition_router());
    let export = &partitioned["/v2/partitions/{partition}/export"]["post"];
    assert_eq!(export["parameters"][0]["name"], "partition");
    assert_eq!(export["parameters"][1]["name"], "Idempotency-Key");
    assert!(export["responses"].get("404").is_none());
    assert!(partitioned.contains_key("/v2/operations/{operationId}") && !partitioned.contains_key("/export"));
}

/// The document of a router, and a validator for requests.
fn described<T: Into<DestinationType>>(types: impl IntoIterator<Item = T>) -> (Value, Validator) {
    let document = ApiDescription::router().destination_types(types).build();
    let document = serde_json::to_value(document).unwrap();
    let schema =
        json!({ "$ref": "#/components/schemas/ExportRequest", "components": document["components"] });
    (document, jsonschema::validator_for(&schema).unwrap())
}

fn request(kind: &str, settings: Value) -> Value {
    json!({ "source": null, "destination": { "type": kind, "settings": settings } })
}

#[test]
fn destination_types_without_schemas_have_any_settings() {
    let (_, validator) = described(["azureblob", "My archive/2"]);
    assert!(validator.is_valid(&request("azureblob", json!({ "any": 1 }))));
    assert!(validator.is_valid(&request("my archive/2", json!({}))));
    assert!(!validator.is_valid(&request("s3", json!({}))));
    assert!(!validator.is_valid(&request("azureblob", json!(1))));
    assert!(!validator.is_valid(&json!({ "destination": { "type": "azureblob" } })));

    let any = serde_json::to_value(http::openapi()).unwrap();
    let settings = &any["components"]["schemas"]["ExportDestination"]["properties"]["settings"];
    assert_eq!(settings["type"], "object");
}

#[test]
fn registered_destination_types_are_described_with_their_settings() {
    let archive = json!({
        "type": "object", "required": ["shelf"], "additionalProperties": false,
        "properties": { "shelf": { "type": "integer", "exclusiveMinimum": 0, "not": { "const": 13 } } }
    });
    let provider = ObjectStoreProvider::new(|_| Err(Error::invalid("", "not opened here")));
    let engine = ExportEngine::builder(MemorySource::new())
        .destination("Archive", provider.with_settings_schema(archive.clone()))
        .destination("azureblob", AzureBlobProvider::default())
        .destination("scratch", MemorySink::new().provider())
        .build()
        .unwrap();
    let service: Arc<dyn ExportService> = Arc::new(engine);
    let (document, validator) = described(service.destination_types());

    let schemas = &document["components"]["schemas"];
    let mapping = json!({
        "archive": "#/components/schemas/archiveDestination",
        "azureblob": "#/components/schemas/azureblobDestination",
        "scratch": "#/components/schemas/scratchDestination",
    });
    assert_eq!(
        schemas["ExportDestination"]["discriminator"],
        json!({ "propertyName": "type", "mapping": mapping })
    );
    // As the provider returned it, with keywords that utoipa does not know.
    assert_eq!(schemas["archiveDestination"]["properties"]["settings"], archive);

    let azure = json!({ "blobContainerUri": "https://account.blob.core.windows.net/container" });
    assert!(validator.is_valid(&request("azureblob", azure.clone())));
    assert!(!validator.is_valid(&request("archive", azure.clone())));
    assert!(validator.is_valid(&request("scratch", azure)));
    assert!(validator.is_valid(&request("archive", json!({ "shelf": 7 }))));
    for refused in [json!({}), json!({ "shelf": 13 }), json!({ "shelf": 7, "box": 1 })] {
        assert!(!validator.is_valid(&request("archive", refused)));
    }
}

#[test]
fn times_need_not_have_seven_fractional_digits() {
    // Azure omits trailing zeros.
    let mut operation = json!({
        "operationId": "df1ff476b83a4a3eaf11b1eac2e5ac56", "type": "export", "createdTime": "2022-09-08T16:40:36.26Z",
        "lastUpdatedTime": "2022-09-08T16:41:01Z", "status": "completed", "warnings": [],
        "results": { "errorHref": "https://a.example/errors.log", "exported": 1, "skipped": 0 }
    });
    check("#/components/schemas/Operation", &operation);
    operation["createdTime"] = json!("2022-09-08T16:40:36.2600000Z");
    check("#/components/schemas/Operation", &operation);
}

#[test]
fn published_requests_match_its_schemas() {
    check("#/components/schemas/ExportRequest", &reference_case());
    check("#/components/schemas/ExportRequest", &export_everything());
    check("#/components/schemas/ResumeRequest", &json!({}));
    check(
        "#/components/schemas/ResumeRequest",
        &json!({ "destination": export_everything()["destination"] }),
    );
}
