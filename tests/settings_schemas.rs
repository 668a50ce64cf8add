//! The schemas of the settings of destination types accept what the providers accept, and refuse what they refuse.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use dicom_export::sink::SinkProvider;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::sink::gcs::GcsProvider;
use dicom_export::sink::s3::{BucketAddressing, S3Policy, S3Provider};
use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// A destination type.
struct Kind {
    provider: Box<dyn SinkProvider>,
    schema: Value,
    validator: Validator,
    /// Values of each property, valid and invalid.
    values: Vec<(&'static str, Vec<Value>)>,
    /// The source file that reads the settings.
    source: &'static str,
}

impl Kind {
    fn new(
        provider: impl SinkProvider,
        values: Vec<(&'static str, Vec<Value>)>,
        source: &'static str,
    ) -> Self {
        let schema = provider.settings_schema().unwrap();
        let validator =
            jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
        Self { provider: Box::new(provider), schema, validator, values, source }
    }

    /// Whether the provider knows a property.
    fn knows(&self, name: &str) -> bool {
        match self.provider.validate(&json!({ name: [] })) {
            Ok(_) => true,
            Err(error) => !error.message().ends_with("is unknown"),
        }
    }
}

fn azure() -> Kind {
    let key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let text = format!(
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};\
         BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    );
    let values = vec![
        ("blobContainerUri", vec![json!("https://account.blob.core.windows.net/container"), json!(1)]),
        ("connectionString", vec![json!(text), json!({})]),
        ("blobContainerName", vec![json!("container"), json!("Container")]),
        ("useManagedIdentity", vec![json!(true), json!(false), json!("true")]),
    ];
    let policy = AzureBlobPolicy::development().allow_anonymous(true);
    Kind::new(AzureBlobProvider::new(policy), values, include_str!("../src/sink/azure/settings.rs"))
}

fn s3() -> Kind {
    let values = vec![
        ("bucket", vec![json!("trial7"), json!("Trial7")]),
        ("prefix", vec![json!("a/b")]),
        ("region", vec![json!("eu-central-1"), json!("EU")]),
        ("endpoint", vec![json!("https://minio.example:9000")]),
        ("accessKeyId", vec![json!("key"), json!("a key")]),
        ("secretAccessKey", vec![json!("secret")]),
        ("sessionToken", vec![json!("token")]),
        ("useInstanceIdentity", vec![json!(true), json!(false)]),
        ("serverSideEncryption", vec![json!("AES256"), json!("aws:kms"), json!("AES128")]),
        ("sseKmsKeyId", vec![json!("arn:aws:kms:eu-central-1:1:key/2")]),
        ("storageClass", vec![json!("STANDARD_IA"), json!("standard")]),
    ];
    let policy = S3Policy::new().allow_endpoint("minio.example:9000", BucketAddressing::Path).unwrap();
    let policy = policy.allow_anonymous(true);
    Kind::new(S3Provider::new(policy), values, include_str!("../src/cloud/s3/settings.rs"))
}

fn gcs() -> Kind {
    let key = json!({ "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY-----", "private_key_id": "1", "more": 1 });
    let values = vec![
        ("bucket", vec![json!("trial7"), json!("T"), json!(7)]),
        ("prefix", vec![json!("a/b"), json!([])]),
        (
            "serviceAccountKey",
            vec![key.clone(), json!(key.to_string()), json!({ "client_email": "a@b" }), json!(1)],
        ),
        ("useInstanceIdentity", vec![json!(true), json!(false)]),
    ];
    Kind::new(GcsProvider::default(), values, include_str!("../src/cloud/gcs/bucket.rs"))
}

fn kinds() -> [Kind; 3] {
    [azure(), s3(), gcs()]
}

/// All combinations of values, and of properties that are absent.
fn combinations(values: &[(&'static str, Vec<Value>)]) -> Vec<Map<String, Value>> {
    let mut all = vec![Map::new()];
    for (name, values) in values {
        let with = |settings: &Map<String, Value>, value: &Value| {
            let mut settings = settings.clone();
            settings.insert((*name).to_owned(), value.clone());
            settings
        };
        let more: Vec<_> =
            all.iter().flat_map(|settings| values.iter().map(move |value| with(settings, value))).collect();
        all.extend(more);
    }
    all
}

#[test]
fn schema_accepts_what_the_provider_accepts() {
    for kind in kinds() {
        let (mut accepted, mut refused) = (0, 0);
        for settings in combinations(&kind.values) {
            let settings = Value::Object(settings);
            let result = kind.provider.validate(&settings);
            let is_valid = kind.validator.is_valid(&settings);
            assert_eq!(is_valid, result.is_ok(), "{settings}: {:?}", result.err());
            if is_valid { accepted += 1 } else { refused += 1 }
        }
        assert!(accepted > 1 && refused > 10, "{accepted} {refused}");
    }
}

#[test]
fn schema_has_the_properties_that_the_provider_reads() {
    for kind in kinds() {
        let properties = kind.schema["properties"].as_object().unwrap();
        let tested: Vec<_> = kind.values.iter().map(|(name, _)| *name).collect();
        assert_eq!(tested.len(), properties.len());
        for name in properties.keys() {
            assert!(kind.knows(name), "{name} is in the schema, and the provider does not know it");
            assert!(tested.contains(&name.as_str()), "{name} is not tested");
        }
        // Every name that the provider could know is a string in the file that reads the settings.
        let candidates = kind.source.split('"').skip(1).step_by(2);
        let read: Vec<_> = candidates.filter(|text| kind.knows(text)).collect();
        assert!(read.len() >= properties.len());
        for name in read {
            assert!(properties.contains_key(name), "{name} is read, and not in the schema");
        }
    }
}

#[test]
fn unknown_properties_are_refused_by_both() {
    for kind in kinds() {
        assert!(!kind.knows("shelf"));
        for mut settings in combinations(&kind.values).into_iter().filter(|settings| settings.len() < 4) {
            settings.insert("shelf".to_owned(), json!("1"));
            assert!(!kind.validator.is_valid(&Value::Object(settings)));
        }
    }
}

#[test]
fn secrets_are_marked() {
    let marked = |kind: &Kind| -> Vec<String> {
        let properties = kind.schema["properties"].as_object().unwrap().iter();
        properties.filter(|(_, one)| one["writeOnly"] == true).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(marked(&azure()), ["blobContainerUri", "connectionString"]);
    assert_eq!(marked(&s3()), ["accessKeyId", "secretAccessKey", "sessionToken"]);
    assert_eq!(marked(&gcs()), ["serviceAccountKey"]);
    for (kind, name) in [(azure(), "connectionString"), (s3(), "secretAccessKey"), (s3(), "sessionToken")] {
        assert_eq!(kind.schema["properties"][name]["format"], "password");
    }
}
