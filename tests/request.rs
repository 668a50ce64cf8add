//! The wire documents: export requests, status documents, identifiers, times and log lines.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use chrono::{DateTime, Utc};
use dicom_export::{
    DicomIdentifier, ErrorKind, ErrorLogEntry, ExportDestination, ExportRequest, ExportSource,
    InstanceIdentifier, Operation, OperationId, OperationStatus, Timestamp, Uid,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(body: &Value) -> Result<ExportRequest, dicom_export::Error> {
    ExportRequest::from_json(body.to_string().as_bytes())
}

#[track_caller]
fn accepted(body: Value) -> ExportRequest {
    let request = read(&body).unwrap();
    let through_serde: ExportRequest = serde_json::from_value(body).unwrap();
    assert_eq!(request, through_serde);
    request
}

/// Asserts that `from_json` and serde refuse the body with the same message, at this pointer.
#[track_caller]
fn refused(body: Value, pointer: &str) -> String {
    refused_text(&body.to_string(), pointer)
}

#[track_caller]
fn refused_text(body: &str, pointer: &str) -> String {
    let error = ExportRequest::from_json(body.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.pointer(), Some(pointer), "{error}");
    let through_serde = serde_json::from_str::<ExportRequest>(body).unwrap_err().to_string();
    let same = through_serde.starts_with(error.message());
    assert!(same || error.message().starts_with("not JSON"), "{error} / {through_serde}");
    error.to_string()
}

fn destination() -> Value {
    json!({ "type": "azureblob", "settings": { "blobContainerUri": "https://a.example/export" } })
}

fn export_of(values: Value) -> Value {
    json!({ "source": { "type": "identifiers", "settings": { "values": values } }, "destination": destination() })
}

#[track_caller]
fn identifiers(request: &ExportRequest) -> Vec<String> {
    match request.source() {
        ExportSource::Everything => panic!("everything"),
        ExportSource::Identifiers(identifiers) => {
            identifiers.iter().map(|identifier| identifier.to_string()).collect()
        }
    }
}

#[test]
fn the_published_request() {
    let request = accepted(export_of(json!(["1.2.3", "12.3/4.5.678", "123.456/7.8/9.1011.12"])));
    assert_eq!(identifiers(&request), ["1.2.3", "12.3/4.5.678", "123.456/7.8/9.1011.12"]);
    assert_eq!(request.destination().kind(), "azureblob");
    assert_eq!(
        request.destination().expose_settings(),
        &json!({ "blobContainerUri": "https://a.example/export" })
    );
}

#[test]
fn names_and_types_in_any_case() {
    let shouted = json!({
        "SOURCE": { "Type": "Identifiers", "Settings": { "Values": ["1.2.3"] } },
        "Destination": { "TYPE": "azureBlob", "SETTINGS": { "BlobContainerUri": "https://a.example/export" } }
    });
    let request = accepted(shouted);
    assert_eq!(identifiers(&request), ["1.2.3"]);
    assert_eq!(request.destination().kind(), ExportDestination::AZURE_BLOB);
    // The settings' names are the destination type's to read.
    assert_eq!(request.destination().expose_settings()["BlobContainerUri"], "https://a.example/export");
}

#[test]
fn sources_is_read_as_source() {
    let source = json!({ "type": "identifiers", "settings": { "values": ["1.2.3"] } });
    let request = accepted(json!({ "Sources": source, "destination": destination() }));
    assert_eq!(identifiers(&request), ["1.2.3"]);
    for other in [source.clone(), json!(null)] {
        refused(json!({ "source": source, "sources": other, "destination": destination() }), "/sources");
    }
}

#[test]
fn a_missing_source_means_everything() {
    for body in [
        json!({ "destination": destination() }),
        json!({ "source": null, "destination": destination() }),
        json!({ "sources": null, "destination": destination() }),
    ] {
        assert!(accepted(body).source().is_everything());
    }
}

#[test]
fn an_unknown_property_is_an_error_with_its_pointer() {
    let settings = json!({ "values": ["1.2.3"] });
    let source = json!({ "type": "identifiers", "settings": settings });
    for (body, pointer) in [
        // Ignored, it would export the whole archive.
        (json!({ "sorce": source, "destination": destination() }), "/sorce"),
        (json!({ "sour/ce~": source, "destination": destination() }), "/sour~1ce~0"),
        (
            json!({ "source": { "type": "identifiers", "settings": settings, "scope": 1 }, "destination": destination() }),
            "/source/scope",
        ),
        (
            json!({ "source": { "type": "identifiers", "settings": { "values": ["1.2"], "vals": [] } }, "destination": destination() }),
            "/source/settings/vals",
        ),
        (json!({ "destination": { "type": "azureblob", "settings": {}, "uri": "x" } }), "/destination/uri"),
    ] {
        assert!(refused(body, pointer).contains("unknown"));
    }
    // A name that may be a misplaced credential is part of neither the message nor the pointer.
    for name in ["x".repeat(10_000), "https://host/container?sig=secret".into(), "AccountKey=c2VjcmV0".into()]
    {
        let message = refused(json!({ &name: 1, "destination": destination() }), "");
        assert_eq!(message, "a property in the document is unknown");
        let inside =
            format!(r#"{{"destination":{{"type":"x","settings":{{"y":[{{"{name}":1,"{name}":2}}]}}}}}}"#);
        let message = refused_text(&inside, "/destination/settings/y/0");
        assert_eq!(message, "a property in '/destination/settings/y/0' occurs twice");
    }
}

#[test]
fn a_duplicate_property_is_an_error() {
    // If the last one were used, the whole archive would be exported.
    let source = r#"{"type":"identifiers","settings":{"values":["1.2.3"]}}"#;
    let destination = r#"{"type":"azureblob","settings":{}}"#;
    for (body, pointer) in [
        (format!(r#"{{"source":{source},"source":null,"destination":{destination}}}"#), "/source"),
        (format!(r#"{{"source":{source},"Source":null,"destination":{destination}}}"#), "/Source"),
        (format!(r#"{{"sources":{source},"sources":null,"destination":{destination}}}"#), "/sources"),
        (
            r#"{"source":{"type":"identifiers","settings":{"values":["1.2"],"VALUES":["1.3"]}},"destination":{"type":"a"}}"#
                .to_owned(),
            "/source/settings/VALUES",
        ),
        (r#"{"destination":{"type":"a","Type":"b"}}"#.to_owned(), "/destination/Type"),
        (
            r#"{"destination":{"type":"a","settings":{"path":"x","path":"y"}}}"#.to_owned(),
            "/destination/settings/path",
        ),
        (
            r#"{"destination":{"type":"a","settings":{"deep":[{"b":1,"b":2}]}}}"#.to_owned(),
            "/destination/settings/deep/0/b",
        ),
    ] {
        assert!(refused_text(&body, pointer).contains("twice"));
    }
}

#[test]
fn a_missing_property_is_an_error_with_its_pointer() {
    refused(json!({}), "/destination");
    refused(json!({ "destination": null }), "/destination");
    refused(json!({ "destination": {} }), "/destination/type");
    refused(json!({ "destination": { "type": "" } }), "/destination/type");
    refused(json!({ "source": {}, "destination": destination() }), "/source/type");
    let values = "/source/settings/values";
    refused(json!({ "source": { "type": "identifiers" }, "destination": destination() }), values);
    refused(
        json!({ "source": { "type": "identifiers", "settings": null }, "destination": destination() }),
        values,
    );
    refused(
        json!({ "source": { "type": "identifiers", "settings": {} }, "destination": destination() }),
        values,
    );
    refused(export_of(json!(null)), values);
    let message = refused(export_of(json!([])), values);
    assert!(message.contains("omit the source"), "{message}");
    let plural =
        json!({ "sources": { "type": "identifiers", "settings": {} }, "destination": destination() });
    refused(plural, "/sources/settings/values");
}

#[test]
fn a_value_of_the_wrong_type_is_an_error_with_its_pointer() {
    for body in [json!(null), json!([]), json!("source"), json!(7), json!(true)] {
        refused(body, "");
    }
    refused(json!({ "source": "1.2.3", "destination": destination() }), "/source");
    refused(json!({ "source": { "type": "all" }, "destination": destination() }), "/source/type");
    refused(json!({ "source": { "type": 1 }, "destination": destination() }), "/source/type");
    let source = json!({ "type": "identifiers", "settings": ["1.2.3"] });
    refused(json!({ "source": source, "destination": destination() }), "/source/settings");
    refused(export_of(json!("1.2.3")), "/source/settings/values");
    refused(json!({ "destination": "azureblob" }), "/destination");
    refused(json!({ "destination": { "type": "azureblob", "settings": "x" } }), "/destination/settings");
    for value in [json!(1.2), json!(null), json!(["1.2"]), json!({}), json!(true)] {
        refused(export_of(json!(["1.2.3", value])), "/source/settings/values/1");
    }
}

#[test]
fn malformed_json_is_an_error_with_its_position() {
    let trailing = format!("{}\n}}", json!({ "destination": destination() }));
    for (text, place) in
        [("", "line 1, column 0"), ("{", "line 1, column 1"), (&trailing, "line 2, column 1")]
    {
        assert_eq!(refused_text(text, ""), format!("not JSON: {place}"));
    }
    let deep = format!(r#"{{"destination":{{"type":"x","settings":{}"#, "[".repeat(100_000));
    assert!(refused_text(&deep, "").starts_with("not JSON"));
    let error = ExportRequest::from_json(b"{\"destination\":\"\xff\"}").unwrap_err();
    assert_eq!((error.kind(), error.pointer()), (ErrorKind::Invalid, Some("")));
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let body = format!("\u{feff}{}", export_of(json!(["1.2.3"])));
    assert_eq!(identifiers(&ExportRequest::from_json(body.as_bytes()).unwrap()), ["1.2.3"]);
    assert_eq!(refused_text("\u{feff}\u{feff}{}", ""), "not JSON: line 1, column 1");
}

#[test]
fn settings_above_64_kib_are_an_error() {
    let with = |settings: Value| json!({ "destination": { "type": "x", "settings": settings } });
    accepted(with(json!({ "path": "x".repeat(60_000) })));
    accepted(with(json!({ "parts": vec![0; 30_000] })));
    for settings in [json!({ "path": "x".repeat(70_000) }), json!({ "parts": vec![0; 70_000] })] {
        let message = refused(with(settings), "/destination/settings");
        assert_eq!(message, "'/destination/settings' is longer than 65536 bytes");
    }
}

#[test]
fn invalid_identifiers_are_errors() {
    for value in [
        "",
        " ",
        "/",
        "1.2.3/",
        "/1.2.3",
        "1//2",
        "1/2/3/4",
        "1.2.3.",
        ".",
        "1.2.a",
        "1 .2",
        "1.2,3",
        "1.2\\3",
        "1.2\u{0}",
        "١.٢",
        "../etc",
        "*",
        "-1",
        &"1".repeat(65),
    ] {
        let message = refused(export_of(json!(["1.2.3", value])), "/source/settings/values/1");
        assert!(value.trim().len() < 3 || !message.contains(value), "{message}");
        assert!(value.parse::<DicomIdentifier>().is_err());
    }
}

#[test]
fn identifiers_in_every_accepted_form() {
    let longest = "1".repeat(64);
    for (given, written) in [
        ("1", "1"),
        (" 1.2.3\t", "1.2.3"),
        (" 12.3 / 4.5\n/ 6 ", "12.3/4.5/6"),
        ("1.02.003/0", "1.02.003/0"),
        (&longest, &longest),
    ] {
        assert_eq!(identifiers(&accepted(export_of(json!([given])))), [written]);
    }
}

#[test]
fn repeated_and_covered_identifiers_are_dropped() {
    for (given, kept) in [
        (json!(["1.2", "1.2", " 1.2 "]), vec!["1.2"]),
        (json!(["1.2/3", "1.2"]), vec!["1.2"]),
        (json!(["1.2", "1.2/3/4", "1.2/3"]), vec!["1.2"]),
        (json!(["1/2/3", "1/2", "1/2/4", "1/3/3"]), vec!["1/2", "1/3/3"]),
        // A common text prefix is not coverage.
        (json!(["1.2", "1.20/3", "1.2.1", "1/2"]), vec!["1.2", "1.20/3", "1.2.1", "1/2"]),
        // A leading zero makes a different UID.
        (json!(["1.2", "1.02/3"]), vec!["1.2", "1.02/3"]),
        (json!(["3", "1", "2", "1"]), vec!["3", "1", "2"]),
        (json!(["1/2/3", "2", "1/2/3", "1.0", "1/2.0/3", "1/2"]), vec!["2", "1.0", "1/2.0/3", "1/2"]),
    ] {
        assert_eq!(identifiers(&accepted(export_of(given))), kept);
    }
}

#[test]
fn a_million_identifiers() {
    let values: Vec<_> =
        (0..1_000_000).map(|n| format!("1.2.840.{}/3.{}/5.{n}", n % 1000, n % 100_000)).collect();
    let request = read(&export_of(json!(values))).unwrap();
    let ExportSource::Identifiers(read) = request.source() else { panic!("everything") };
    assert_eq!(read.len(), values.len());
    assert_eq!(read.get(999_999).unwrap().to_string(), values[999_999]);
}

#[test]
fn a_request_is_written_as_it_was_read() {
    let body = export_of(json!(["1.2.3", "1.3/4"]));
    assert_eq!(serde_json::to_value(accepted(body.clone())).unwrap(), body);
    let everything = json!({ "destination": destination() });
    assert_eq!(serde_json::to_value(accepted(everything.clone())).unwrap(), everything);
    let source = ExportSource::Everything;
    assert_eq!(serde_json::to_value(&source).unwrap(), json!(null));
    assert_eq!(serde_json::from_value::<ExportSource>(json!(null)).unwrap(), source);
}

#[test]
fn a_request_built_in_code_has_the_wire_form() {
    let uid = |text| Uid::new(text).unwrap();
    let values = [
        DicomIdentifier::study(uid("1.2.3")),
        DicomIdentifier::series(uid("1.2.3"), uid("4")),
        DicomIdentifier::instance(uid("5"), uid("6"), uid("7")),
    ];
    let source = ExportSource::identifiers(values).unwrap();
    let uri = "https://a.example/export";
    let request = ExportRequest::new(source, ExportDestination::azure_blob(uri));
    assert_eq!(serde_json::to_value(&request).unwrap(), export_of(json!(["1.2.3", "5/6/7"])));
    let identity = ExportDestination::azure_blob_with_managed_identity(uri);
    let settings = json!({ "blobContainerUri": uri, "useManagedIdentity": true });
    assert_eq!(identity.expose_settings(), &settings);
    let string = ExportDestination::azure_blob_from_connection_string("UseDevelopmentStorage=true", "export");
    let settings = json!({ "connectionString": "UseDevelopmentStorage=true", "blobContainerName": "export" });
    assert_eq!(string.expose_settings(), &settings);
    assert_eq!(ExportSource::identifiers([]).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn debug_hides_the_destinations_settings() {
    let body = json!({ "destination": { "type": "azureblob", "settings": {
        "blobContainerUri": "https://a.example/export?sig=hunter2", "nested": { "key": "hunter3" } } } });
    let shown = format!("{:?} {:#?}", accepted(body.clone()), accepted(body));
    assert!(shown.contains("blobContainerUri") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn uids_from_files_lose_their_padding() {
    for padded in ["1.2.3", "1.2.3\0", "1.2.3 ", "1.2.3 \0 ", " 1.2.3"] {
        assert_eq!(Uid::from_padded(padded).unwrap().as_str(), "1.2.3");
    }
    for damaged in ["", "\0", " ", "1.2\u{0}3", "1.2.3."] {
        assert_eq!(Uid::from_padded(damaged).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn an_identifier_covers_the_instances_under_it() {
    let instance: InstanceIdentifier = "1.2/3/4".parse().unwrap();
    let covers = |text: &str| text.parse::<DicomIdentifier>().unwrap().covers(&instance);
    assert!(covers("1.2") && covers("1.2/3") && covers("1.2/3/4"));
    assert!(!covers("1") && !covers("1.2/30") && !covers("1.2/3/40") && !covers("1.2/4/4"));
    assert_eq!(DicomIdentifier::from(instance.clone()).to_string(), instance.to_string());
    for short in ["1.2", "1.2/3", "1/2/3/4", ""] {
        assert!(short.parse::<InstanceIdentifier>().is_err());
    }
}

#[test]
fn operation_ids() {
    let id = "df1ff476b83a4a3eaf11b1eac2e5ac56";
    for form in [
        id,
        "df1ff476-b83a-4a3e-af11-b1eac2e5ac56",
        "DF1FF476B83A4A3EAF11B1EAC2E5AC56",
        "DF1FF476-b83a-4a3e-af11-b1eac2e5AC56",
    ] {
        let read: OperationId = form.parse().unwrap();
        assert_eq!(read.to_string(), id);
        assert_eq!(serde_json::to_value(read).unwrap(), id);
        assert_eq!(serde_json::from_value::<OperationId>(json!(form)).unwrap(), read);
        assert_eq!(OperationId::from_u128(read.as_u128()), read);
    }
    for wrong in [
        "",
        "df1ff476b83a4a3eaf11b1eac2e5ac5",
        "df1ff476b83a4a3eaf11b1eac2e5ac567",
        "gf1ff476b83a4a3eaf11b1eac2e5ac56",
        "{df1ff476-b83a-4a3e-af11-b1eac2e5ac56}",
        "urn:uuid:df1ff476-b83a-4a3e-af11-b1eac2e5ac56",
        "df1ff476b83a-4a3e-af11-b1eac2e5ac56-",
        "../errors.log",
    ] {
        assert_eq!(wrong.parse::<OperationId>().unwrap_err().kind(), ErrorKind::Invalid, "{wrong}");
    }
    let new = OperationId::random().to_string();
    assert!(new.len() == 32 && new.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{new}");
    assert_ne!(OperationId::random(), OperationId::random());
}

#[test]
fn the_published_status_document() {
    let mut document = json!({
        "operationId": "df1ff476b83a4a3eaf11b1eac2e5ac56", "type": "export",
        "createdTime": "2022-09-08T16:40:36.2627618Z", "lastUpdatedTime": "2022-09-08T16:41:01.2776644Z",
        "status": "completed",
        "results": { "errorHref": "https://a.example/export/x/errors.log", "exported": 1000, "skipped": 3 }
    });
    let operation: Operation = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(operation.status, OperationStatus::Completed);
    assert_eq!(serde_json::to_value(&operation).unwrap(), document);
    document["percentComplete"] = json!(100);
    document["error"] = json!({ "code": "unavailable", "message": "the destination cannot be reached" });
    document["warnings"] = json!([{ "code": "duplicates", "message": "2 files" }]);
    document["status"] = json!("failed");
    let operation: Operation = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(&operation).unwrap(), document);
}

#[test]
fn statuses() {
    for (text, status, ended) in [
        ("notStarted", OperationStatus::NotStarted, false),
        ("running", OperationStatus::Running, false),
        ("paused", OperationStatus::Paused, false),
        ("completed", OperationStatus::Completed, true),
        ("failed", OperationStatus::Failed, true),
        ("canceled", OperationStatus::Canceled, true),
        ("unknown", OperationStatus::Unknown, false),
    ] {
        assert_eq!(serde_json::to_value(status).unwrap(), text);
        assert_eq!(serde_json::from_value::<OperationStatus>(json!(text)).unwrap(), status);
        assert_eq!(status.is_ended(), ended);
    }
    let read = |text: &str| serde_json::from_value::<OperationStatus>(json!(text)).unwrap();
    assert_eq!(read("succeeded"), OperationStatus::Completed);
    assert_eq!(read("suspended"), OperationStatus::Unknown);
}

#[test]
fn timestamps_always_have_seven_fractional_digits() {
    for (given, written) in [
        ("2022-09-08T16:40:36.2627618Z", "2022-09-08T16:40:36.2627618Z"),
        ("2022-09-08T16:40:36Z", "2022-09-08T16:40:36.0000000Z"),
        ("2022-09-08T16:40:36.26Z", "2022-09-08T16:40:36.2600000Z"),
        ("2022-09-08T16:40:36.123456789Z", "2022-09-08T16:40:36.1234567Z"),
        ("2022-09-08T18:40:36.5+02:00", "2022-09-08T16:40:36.5000000Z"),
        // chrono represents a leap second by a nanosecond count of at least one billion.
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60.0000000Z"),
        ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:60.5000000Z"),
    ] {
        let time: Timestamp = given.parse().unwrap();
        assert_eq!(time.to_string(), written);
        assert_eq!(written.parse::<Timestamp>().unwrap(), time);
        assert_eq!(serde_json::from_value::<Timestamp>(json!(given)).unwrap(), time);
    }
    for wrong in [
        "",
        "2022-09-08",
        "2022-09-08T16:40:36",
        "yesterday",
        // These years cannot be written in RFC 3339, so a stored record with them could not be read back.
        "+10000-01-01T00:00:00Z",
        "-0001-12-31T23:59:59Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00+01:00",
    ] {
        assert_eq!(wrong.parse::<Timestamp>().unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_timestamp_that_cannot_be_read_back_cannot_be_built() {
    let outside = [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC];
    for time in outside {
        assert_eq!(Timestamp::try_from(time).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let now = Timestamp::now();
    for time in [now.saturating_add(Duration::MAX), now.saturating_sub(Duration::MAX)] {
        assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
    }
    assert_eq!(now.saturating_add(Duration::MAX).to_string(), "9999-12-31T23:59:59.9999999Z");
    assert_eq!(now.saturating_sub(Duration::MAX).to_string(), "0000-01-01T00:00:00.0000000Z");
}

#[test]
fn error_log_lines() {
    let time: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let entry = ErrorLogEntry::new(time, "1.2/3/4", "it said \"no\"\r\nand\u{85}\u{2028}left \u{e9}");
    let line = entry.to_line();
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.ends_with("}\n") && !line.contains('\r'));
    assert!(
        line.starts_with(r#"{"timestamp":"2026-01-02T03:04:05.0000000Z","identifier":"1.2/3/4","error":""#),
        "{line}"
    );
    assert_eq!(serde_json::from_str::<ErrorLogEntry>(&line).unwrap(), entry);
    let published = r#"{"Timestamp":"2026-01-02T03:04:05.0000000Z","Identifier":"1.2","Error":"gone"}"#;
    let entry: ErrorLogEntry = serde_json::from_str(published).unwrap();
    assert_eq!((entry.timestamp(), entry.identifier(), entry.error()), (time, "1.2", "gone"));
    for wrong in ["{}", "[]", r#"{"timestamp":"soon","identifier":"1.2","error":"gone"}"#] {
        assert!(serde_json::from_str::<ErrorLogEntry>(wrong).is_err());
    }
}

fn uid() -> impl Strategy<Value = String> {
    "[0-9.]{0,63}[0-9]"
}

proptest! {
    #[test]
    fn identifiers_round_trip(parts in prop::collection::vec(uid(), 1..=3)) {
        let text = parts.join("/");
        let identifier: DicomIdentifier = text.parse().unwrap();
        prop_assert_eq!(identifier.to_string(), text);
    }

    /// The kept identifiers cover each requested instance exactly once.
    #[test]
    fn each_instance_is_under_one_kept_identifier(
        given in prop::collection::vec(prop::collection::vec(0_u8..3, 1..=3), 1..20),
        instance in prop::array::uniform3(0_u8..3),
    ) {
        let join = |parts: &[u8]| parts.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
        let given: Vec<DicomIdentifier> = given.iter().map(|parts| join(parts).parse().unwrap()).collect();
        let instance: InstanceIdentifier = join(&instance).parse().unwrap();
        let requested = given.iter().any(|identifier| identifier.covers(&instance));
        let ExportSource::Identifiers(kept) = ExportSource::identifiers(given).unwrap() else { unreachable!() };
        let under = kept.iter().filter(|identifier| identifier.covers(&instance)).count();
        prop_assert_eq!(under, usize::from(requested));
    }

    #[test]
    fn timestamps_round_trip(seconds in -62_167_219_200_i64..253_402_300_800, nanos in 0_u32..1_000_000_000) {
        let time: Timestamp = DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap().try_into().unwrap();
        let text = time.to_string();
        prop_assert_eq!(text.len(), "2022-09-08T16:40:36.2627618Z".len());
        prop_assert_eq!(text.parse::<Timestamp>().unwrap(), time);
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = ExportRequest::from_json(&body) {
            prop_assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
}
