//! The OpenAPI document. Every test in this binary checks its responses against it.

use dicom_export::http::ApiDescription;
use serde_json::json;

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

    let document = ApiDescription::router().destination_types(["azureblob", "archive"]).build();
    let document = serde_json::to_value(document).unwrap();
    let kind = &document["components"]["schemas"]["ExportDestination"]["properties"]["type"];
    assert_eq!(kind["enum"], json!(["azureblob", "archive"]));
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
