//! Which settings and destinations are accepted.

use dicom_export::sink::SinkProvider;
use dicom_export::sink::s3::{BucketAddressing, S3Policy, S3Provider};
use dicom_export::{BlobSink, Error, ErrorKind, ObjectStoreSink, Result};
use serde_json::{Value, json};

fn with(changes: Value) -> Value {
    let mut settings = json!({ "bucket": "trial7", "region": "eu-central-1", "accessKeyId": "key", "secretAccessKey": "secret" });
    for (name, value) in changes.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

fn location(settings: &Value, policy: S3Policy) -> Result<String> {
    S3Provider::new(policy).validate(settings).map(|validated| validated.location)
}

#[track_caller]
fn assert_refused(changes: Value, policy: S3Policy, pointer: &str) -> Error {
    let error = location(&with(changes.clone()), policy).unwrap_err();
    assert_eq!((error.kind(), error.pointer()), (ErrorKind::Invalid, Some(pointer)), "{changes}: {error}");
    error
}

#[test]
fn endpoint_follows_from_the_region() {
    let at = |changes| location(&with(changes), S3Policy::new()).unwrap();
    assert_eq!(at(json!({})), "https://trial7.s3.eu-central-1.amazonaws.com");
    assert_eq!(at(json!({ "region": "cn-north-1" })), "https://trial7.s3.cn-north-1.amazonaws.com.cn");
    assert_eq!(at(json!({ "prefix": "a/b.c/" })), "https://trial7.s3.eu-central-1.amazonaws.com/a/b.c");
    // The certificates of Amazon S3 are valid for one label.
    assert_eq!(at(json!({ "bucket": "a.b" })), "https://s3.eu-central-1.amazonaws.com/a.b");
    let fips = json!({ "endpoint": "https://s3-fips.dualstack.us-west-2.amazonaws.com", "region": null });
    assert_eq!(at(fips), "https://trial7.s3-fips.dualstack.us-west-2.amazonaws.com");
}

#[test]
fn names_are_read_in_any_case() {
    let settings =
        json!({ "BUCKET": "trial7", "Region": "eu-central-1", "useinstanceidentity": true, "prefix": "" });
    assert_eq!(location(&settings, S3Policy::new()).unwrap(), "https://trial7.s3.eu-central-1.amazonaws.com");
}

#[test]
fn location_of_the_sink_is_that_of_the_settings() {
    let policy = S3Policy::new().allow_endpoint("minio.example:9000", BucketAddressing::Path).unwrap();
    for changes in
        [json!({}), json!({ "prefix": "a/b" }), json!({ "endpoint": "https://minio.example:9000" })]
    {
        let sink = ObjectStoreSink::open_s3(&with(changes.clone()), &policy).unwrap();
        assert_eq!(sink.location(), location(&with(changes), policy.clone()).unwrap());
    }
}

#[test]
fn only_listed_endpoints_are_used() {
    let policy = || {
        S3Policy::new()
            .allow_endpoint("minio.example:9000", BucketAddressing::Path)
            .unwrap()
            .allow_endpoint("http://store", BucketAddressing::VirtualHosted)
            .unwrap()
    };
    let at = |endpoint: &str| location(&with(json!({ "endpoint": endpoint, "region": null })), policy());
    assert_eq!(at("https://minio.example:9000").unwrap(), "https://minio.example:9000/trial7");
    assert_eq!(at("https://minio.example:9000/").unwrap(), "https://minio.example:9000/trial7");
    assert_eq!(at("http://store").unwrap(), "http://trial7.store");
    for unlisted in [
        "https://minio.example",
        "http://minio.example:9000",
        "https://minio.example:9001",
        "https://xminio.example:9000",
        "https://store",
        "http://127.0.0.1:9000",
        "https://169.254.169.254",
        "http://s3.eu-central-1.amazonaws.com",
        "https://s3.eu-central-1.amazonaws.com:8443",
        "https://s3.eu-central-1.amazonaws.com.evil.example",
        "https://evil.s3.eu-central-1.amazonaws.com",
        "https://s3.amazonaws.com.evil.example",
        "https://ec2.eu-central-1.amazonaws.com",
    ] {
        let error = at(unlisted).unwrap_err();
        assert_eq!(error.pointer(), Some("/endpoint"), "{unlisted}");
        assert!(!error.message().contains("example"), "{error}");
    }
    for invalid in
        ["s3", "ftp://store", "https://store/bucket", "https://user@store", "https://store?x", "https://"]
    {
        assert_eq!(at(invalid).unwrap_err().pointer(), Some("/endpoint"), "{invalid}");
    }
    let only = policy().only_allowed_endpoints();
    assert_eq!(location(&with(json!({})), only).unwrap_err().pointer(), Some("/endpoint"));
    let loopback = with(json!({ "endpoint": "http://127.0.0.1:9000" }));
    assert_eq!(location(&loopback, S3Policy::development()).unwrap(), "http://127.0.0.1:9000/trial7");
}

#[test]
fn only_listed_buckets_are_used() {
    let policy = S3Policy::new().allow_bucket("trial7").allow_bucket("trial8");
    location(&with(json!({ "bucket": "trial8" })), policy.clone()).unwrap();
    assert_refused(json!({ "bucket": "trial9" }), policy, "/bucket");
}

#[test]
fn credentials_follow_the_policy() {
    let identity = json!({ "accessKeyId": null, "secretAccessKey": null, "useInstanceIdentity": true });
    let none = json!({ "accessKeyId": null, "secretAccessKey": null });
    location(&with(identity.clone()), S3Policy::new().allow_access_keys(false)).unwrap();
    location(&with(none.clone()), S3Policy::new().allow_anonymous(true)).unwrap();
    assert_refused(json!({}), S3Policy::new().allow_access_keys(false), "/accessKeyId");
    assert_refused(none, S3Policy::new(), "/accessKeyId");
}

/// A signature of the server's identity, and its session token, must not be readable on the way.
#[test]
fn guarantee_7_identity_is_sent_over_https_to_listed_endpoints_only() {
    let identity = |endpoint: &str| json!({ "accessKeyId": null, "secretAccessKey": null, "useInstanceIdentity": true, "endpoint": endpoint });
    let policy = || {
        S3Policy::development()
            .allow_endpoint("https://store.example", BucketAddressing::Path)
            .unwrap()
            .allow_endpoint("http://plain.example", BucketAddressing::Path)
            .unwrap()
    };
    location(&with(identity("https://store.example")), policy()).unwrap();
    location(&with(identity("https://s3.eu-central-1.amazonaws.com")), policy()).unwrap();
    assert_refused(identity("http://plain.example"), policy(), "/useInstanceIdentity");
    assert_refused(identity("http://127.0.0.1:9000"), policy(), "/useInstanceIdentity");
    assert_refused(identity("https://127.0.0.1:9000"), policy(), "/useInstanceIdentity");
    assert_refused(identity("https://other.example"), policy(), "/endpoint");
}

#[test]
fn wrong_settings_are_refused_with_a_pointer() {
    let long = "a".repeat(64);
    let cases = [
        (json!({ "bucket": null }), "/bucket"),
        (json!({ "bucket": 7 }), "/bucket"),
        (json!({ "bucket": "ab" }), "/bucket"),
        (json!({ "bucket": long }), "/bucket"),
        (json!({ "bucket": "Trial" }), "/bucket"),
        (json!({ "bucket": "a..b" }), "/bucket"),
        (json!({ "bucket": "a/b" }), "/bucket"),
        (json!({ "bucket": "-ab" }), "/bucket"),
        (json!({ "bucket": "192.168.0.1" }), "/bucket"),
        (json!({ "bucket": "trial--use1-az4--x-s3" }), "/bucket"),
        (json!({ "region": null }), "/region"),
        (json!({ "region": "eu.evil" }), "/region"),
        (json!({ "region": "us-east-1", "endpoint": "https://s3.eu-central-1.amazonaws.com" }), "/region"),
        (json!({ "prefix": "a//b" }), "/prefix"),
        (json!({ "prefix": "../a" }), "/prefix"),
        (json!({ "prefix": "a b" }), "/prefix"),
        (json!({ "prefix": "/" }), "/prefix"),
        (json!({ "accessKeyId": null }), "/accessKeyId"),
        (json!({ "accessKeyId": "a\nb" }), "/accessKeyId"),
        (json!({ "accessKeyId": "a/b" }), "/accessKeyId"),
        (json!({ "secretAccessKey": null }), "/secretAccessKey"),
        (json!({ "sessionToken": "a b" }), "/sessionToken"),
        (json!({ "accessKeyId": null, "secretAccessKey": null, "sessionToken": "a" }), "/accessKeyId"),
        (json!({ "useInstanceIdentity": true }), "/useInstanceIdentity"),
        (json!({ "useInstanceIdentity": "yes" }), "/useInstanceIdentity"),
        (json!({ "serverSideEncryption": "aes" }), "/serverSideEncryption"),
        (json!({ "sseKmsKeyId": "key" }), "/serverSideEncryption"),
        (json!({ "serverSideEncryption": "AES256", "sseKmsKeyId": "key" }), "/sseKmsKeyId"),
        (json!({ "serverSideEncryption": "aws:kms", "sseKmsKeyId": "a\r\nb" }), "/sseKmsKeyId"),
        (json!({ "storageClass": "standard" }), "/storageClass"),
        (json!({ "buckets": "a" }), "/buckets"),
    ];
    for (changes, pointer) in cases {
        assert_refused(changes, S3Policy::new(), pointer);
    }
}

#[tokio::test]
async fn only_the_access_key_is_secret() {
    let provider = S3Provider::new(S3Policy::new());
    let token = with(json!({ "sessionToken": "token", "prefix": "a", "storageClass": "STANDARD_IA" }));
    let validated = provider.validate(&token).unwrap();
    assert_eq!(
        validated.public,
        json!({
            "endpoint": "https://s3.eu-central-1.amazonaws.com/",
            "addressing": "virtualHosted",
            "region": "eu-central-1",
            "bucket": "trial7",
            "prefix": "a",
            "storageClass": "STANDARD_IA",
            "credential": "accessKey",
        })
    );
    let secret: Value = serde_json::from_str(validated.secret.unwrap().expose()).unwrap();
    assert_eq!(secret, json!({ "accessKeyId": "key", "secretAccessKey": "secret", "sessionToken": "token" }));
    let identity = with(json!({ "accessKeyId": null, "secretAccessKey": null, "useInstanceIdentity": true }));
    assert!(provider.validate(&identity).unwrap().secret.is_none());
}
