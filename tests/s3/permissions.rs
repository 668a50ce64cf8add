//! What the permissions of a credential allow, with IAM policies that moto enforces.

use std::collections::BTreeMap;
use std::time::Duration;

use dicom_export::sink::s3::{S3Policy, S3Provider};
use dicom_export::{
    BlobSink, ErrorKind, ExportDestination, ExportEngine, ExportSource, MemorySource, NewOperation,
    OperationStatus, RetryPolicy,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::s3::{Bucket, S3Server};
use crate::{MIB, bytes, log, sink};

/// Creates a user with a policy, and returns the settings of the bucket with the user's key.
async fn settings_of_user(bucket: &Bucket<'_>, name: &str, policy: &Value) -> Value {
    let call = async |form: String| {
        let form = format!("{form}&UserName={name}&Version=2010-05-08");
        let (status, body) = bucket.server.request("iam", Method::POST, "/", &form).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    call("Action=CreateUser".to_owned()).await;
    let policy =
        reqwest::Url::parse_with_params("http://x", [("PolicyDocument", policy.to_string())]).unwrap();
    call(format!("Action=PutUserPolicy&PolicyName=policy&{}", policy.query().unwrap())).await;
    let key = call("Action=CreateAccessKey".to_owned()).await;
    let of = |element: &str| {
        let (_, rest) = key.split_once(&format!("<{element}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let mut settings = bucket.settings();
    settings["accessKeyId"] = json!(of("AccessKeyId"));
    settings["secretAccessKey"] = json!(of("SecretAccessKey"));
    settings
}

/// From now on, the server verifies signatures and enforces policies.
async fn enforce(server: &S3Server) {
    let url = format!("{}/moto-api/reset-auth", server.endpoint());
    let response = reqwest::Client::new().post(url).body("0").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

fn allow(bucket: &Bucket<'_>, actions: &[&str]) -> Value {
    let arn = format!("arn:aws:s3:::{}", bucket.name);
    let statement = json!({ "Effect": "Allow", "Action": actions, "Resource": [arn, format!("{arn}/*")] });
    json!({ "Version": "2012-10-17", "Statement": [statement] })
}

/// The policy in the documentation, for this bucket.
fn documented(bucket: &Bucket<'_>) -> Value {
    let page = include_str!("../../docs/s3.md");
    let policies = page.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
    let mut policies = policies.filter(|block| block.contains("\"Statement\""));
    let policy = policies.next().unwrap().replace("trial7-exports", &bucket.name);
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    // moto checks the permission to delete several objects at the bucket, S3 at each object.
    let objects = policy["Statement"][0]["Resource"].take();
    policy["Statement"][0]["Resource"] = json!([objects, format!("arn:aws:s3:::{}", bucket.name)]);
    policy
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn missing_permission_is_found_at_the_start() {
    let server = S3Server::moto();
    let bucket = server.bucket().await;
    let all = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:ListBucket"];
    let without = |missing: &str| -> Vec<_> {
        all.into_iter().filter(|action| *action != missing).map(|action| action.to_owned()).collect()
    };
    let mut cases = Vec::new();
    for (name, missing, message) in [
        ("lister", "s3:ListBucket", "may not list objects"),
        ("reader", "s3:GetObject", "may not read objects"),
        ("deleter", "s3:DeleteObject", "may not delete objects"),
        ("writer", "s3:PutObject", "the store refused the credential or the permission (403 AccessDenied)"),
    ] {
        let allowed = without(missing);
        let allowed: Vec<_> = allowed.iter().map(String::as_str).collect();
        cases.push((settings_of_user(&bucket, name, &allow(&bucket, &allowed)).await, message));
    }
    enforce(&server).await;
    for (settings, message) in cases {
        let error = sink(&settings).prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.message().contains(message), "{error} is not {message}");
    }
}

/// The documented policy is enough for an export with multipart uploads, and for aborting what a killed process has left.
#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn documented_policy_is_sufficient() {
    let server = S3Server::moto();
    let bucket = server.bucket().await;
    let settings = settings_of_user(&bucket, "exporter", &documented(&bucket)).await;
    enforce(&server).await;
    let archive: BTreeMap<_, _> = [(1, 100), (2, 6 * MIB)]
        .map(|(n, size)| (format!("1.2/3.4/5.{n}").parse().unwrap(), bytes(size)))
        .into();
    let source: MemorySource = archive.into_iter().collect();
    let engine = ExportEngine::builder(source)
        .destination("s3", S3Provider::new(S3Policy::development()))
        .retry(RetryPolicy::with_budget(Duration::from_secs(10)))
        .manifest(true)
        .build()
        .unwrap();
    let new = NewOperation::new(ExportSource::Everything, ExportDestination::new("s3", settings));
    let id = engine.start(new).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert_eq!((ended.results.exported, ended.results.skipped), (2, 0));
}
