//! Tokens of the server's identity: the forms of an identity response, and tokens that the destination refuses.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink, Identity};
use dicom_export::{BlobSink, Content, ErrorKind};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::responder::{Reply, Request, Responder};
use crate::{MIB, all_of, bytes, instance, log, upload};

/// A destination that a managed identity may write to: a responder with https.
struct Destination {
    responder: Responder,
    port: u16,
    certificate: String,
    _tasks: JoinSet<()>,
}

impl Destination {
    async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let responder = Responder::start(reply).await;
        let upstream = responder.url().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![signed.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { responder, port, certificate: signed.cert.pem(), _tasks: tasks }
    }

    /// A sink that writes with the identity of this identity service.
    fn sink(&self, identities: &Responder, identity: Identity) -> AzureBlobSink {
        let settings = json!({
            "blobContainerUri": format!("https://127.0.0.1:{}/devstoreaccount1/container", self.port),
            "useManagedIdentity": true,
        });
        let policy = AzureBlobPolicy::development()
            .with_root_certificate(self.certificate.as_str())
            .with_identity(identity)
            .with_identity_endpoint(identities.url())
            .with_authority_host(identities.url());
        AzureBlobSink::from_settings(&settings, &policy).unwrap()
    }

    /// The tokens of all requests.
    fn tokens(&self) -> Vec<String> {
        let token = |request: &Request| request.header("authorization").unwrap().to_owned();
        self.responder.requests().iter().map(token).collect()
    }
}

/// An identity service whose tokens are numbered from 1.
async fn numbered_tokens() -> Responder {
    let count = AtomicUsize::new(0);
    let reply = move |_: &Request| {
        let token = format!("token{}", count.fetch_add(1, SeqCst) + 1);
        Reply::status(200).body(json!({ "access_token": token, "expires_in": 3600 }))
    };
    Responder::start(reply).await
}

fn refuse(tokens: &'static [&'static str]) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| {
        let token = request.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
        if tokens.contains(&token) {
            Reply::code(401, "InvalidAuthenticationInfo")
        } else {
            Reply::status(201)
        }
    }
}

/// A token is refused before its expiry if it was revoked, or if a clock is wrong.
#[tokio::test]
async fn refused_token_is_replaced_once_and_the_request_repeated() {
    let (identities, destination) =
        (numbered_tokens().await, Destination::start(refuse(&["token1", "token3"])).await);
    let sink = destination.sink(&identities, Identity::SystemAssigned);
    let log = log();
    sink.prepare(&log).await.unwrap();
    assert_eq!(destination.tokens(), ["Bearer token1", "Bearer token2"]);
    sink.append(&log, LogKey::new(0, 0), Bytes::from("{}\n")).await.unwrap();
    let content = bytes(9 * MIB);
    sink.put(&instance(), Content::from_bytes(content.clone()), &upload(32 * MIB)).await.unwrap();
    assert_eq!(identities.requests().len(), 2, "the new token is cached");
    let sent: usize =
        destination.responder.requests().iter().filter(|r| r.has_comp("block")).map(|r| r.body.len()).sum();
    assert_eq!(sent, content.len());
}

#[tokio::test]
async fn concurrent_requests_share_the_new_token() {
    // All requests with the first token are refused together.
    let (identities, destination) = (numbered_tokens().await, Destination::start(refuse(&["token1"])).await);
    let sink = destination.sink(&identities, Identity::SystemAssigned);
    let upload = upload(32 * MIB);
    let puts = (0..16).map(async |_| {
        sink.put(&instance(), Content::from_bytes(bytes(1000)), &upload).await.unwrap();
    });
    join_all(puts).await;
    assert_eq!(identities.requests().len(), 2);
    let tokens = destination.tokens();
    assert!(tokens.len() <= 32, "{} requests", tokens.len());
    assert_eq!(BTreeSet::from_iter(tokens).len(), 2);
}

#[tokio::test]
async fn second_refusal_fails_the_request() {
    let (identities, destination) = (
        numbered_tokens().await,
        Destination::start(|_| Reply::code(401, "InvalidAuthenticationInfo")).await,
    );
    let sink = destination.sink(&identities, Identity::SystemAssigned);
    for attempt in 1..=2 {
        let error = sink.prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.message().contains("refused the credential (401"), "{error}");
        assert!(!all_of(&error).contains("token1"));
        assert_eq!(destination.tokens().len(), 2 * attempt, "each request is repeated once");
    }
}

/// Status 403 means that the identity may not write, which a new token does not change.
#[tokio::test]
async fn missing_permission_repeats_nothing() {
    let (identities, destination) = (
        numbered_tokens().await,
        Destination::start(|_| Reply::code(403, "AuthorizationPermissionMismatch")).await,
    );
    let sink = destination.sink(&identities, Identity::SystemAssigned);
    assert_eq!(sink.prepare(&log()).await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(destination.tokens(), ["Bearer token1"]);
}

/// A SAS cannot be replaced.
#[tokio::test]
async fn refused_sas_repeats_nothing() {
    let server = Responder::start(|_| Reply::code(401, "InvalidAuthenticationInfo")).await;
    assert_eq!(
        crate::faulty(&server.url()).prepare(&log()).await.unwrap_err().kind(),
        ErrorKind::Unauthorized
    );
    assert_eq!(server.requests().len(), 1);
}

/// The fields of a response without the token.
fn forms(lifetime: TimeDelta) -> Vec<Value> {
    let expiry = Utc::now() + lifetime;
    let (seconds, lifetime) = (expiry.timestamp(), lifetime.num_seconds());
    let text = |format: &str| expiry.format(format).to_string();
    vec![
        // Virtual machines, "How to use managed identities for Azure resources on an Azure VM to acquire an access token".
        json!({ "expires_on": seconds.to_string(), "expires_in": lifetime.to_string() }),
        json!({ "expires_on": seconds.to_string() }),
        json!({ "expires_on": seconds }),
        json!({ "expires_on": seconds as f64 + 0.5 }),
        json!({ "expires_on": format!(" {seconds} ") }),
        // App Service, "How to use managed identities for App Service": API version 2017-09-01 and before.
        json!({ "expires_on": text("%m/%d/%Y %H:%M:%S +00:00") }),
        json!({ "expires_on": text("%-m/%-d/%Y %-I:%M:%S %p +00:00") }),
        json!({ "expires_on": text("%m/%d/%Y %I:%M:%S %p +00:00") }),
        json!({ "expires_on": text("%Y-%m-%dT%H:%M:%SZ") }),
        json!({ "expires_on": text("%Y-%m-%dT%H:%M:%S.1234567+00:00") }),
        json!({ "expires_on": null, "expires_in": lifetime }),
        json!({ "expires_in": lifetime }),
        json!({ "expires_in": lifetime.to_string() }),
        json!({ "expires_in": lifetime as f64 }),
        // The lifetime does not depend on this machine's clock.
        json!({ "expires_in": lifetime, "expires_on": "0" }),
        json!({ "expires_in": "", "expires_on": seconds }),
    ]
}

/// The number of tokens that are requested for three requests with this identity response.
async fn token_requests(destination: &Destination, identity: &Identity, fields: &Value) -> usize {
    let mut response = fields.clone();
    response["access_token"] = "token".into();
    response["token_type"] = "Bearer".into();
    let identities = Responder::start(move |_| Reply::status(200).body(&response)).await;
    let sink = destination.sink(&identities, identity.clone());
    for _ in 0..3 {
        sink.prepare(&log()).await.unwrap_or_else(|error| panic!("{fields}: {error:?}"));
    }
    identities.requests().len()
}

#[tokio::test]
async fn identity_response_is_read_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "federated").unwrap();
    let workload = Identity::Workload { tenant_id: "tenant".into(), client_id: "client".into(), token_file };
    let destination = Destination::start(|_| Reply::status(201)).await;
    for fields in forms(TimeDelta::hours(2)) {
        for identity in [&Identity::SystemAssigned, &workload] {
            assert_eq!(token_requests(&destination, identity, &fields).await, 1, "{fields} {identity:?}");
        }
    }
    // A token without a readable lifetime is used, and cached for a while.
    for fields in [json!({}), json!({ "expires_on": "soon" }), json!({ "expires_in": [] })] {
        assert_eq!(token_requests(&destination, &workload, &fields).await, 1, "{fields}");
    }
}

/// A lifetime beyond what a clock can represent used to cause a panic.
#[tokio::test]
async fn excessive_lifetimes_are_clamped() {
    let destination = Destination::start(|_| Reply::status(201)).await;
    for lifetime in [json!(u64::MAX), json!(u64::MAX.to_string()), json!(1e300), json!("9".repeat(40))] {
        for field in ["expires_on", "expires_in"] {
            let fields = json!({ field: lifetime });
            assert_eq!(token_requests(&destination, &Identity::SystemAssigned, &fields).await, 1, "{fields}");
        }
    }
    for lifetime in [json!(-1), json!("-1"), json!(i64::MIN), json!("-inf"), json!("nan")] {
        for field in ["expires_on", "expires_in"] {
            token_requests(&destination, &Identity::SystemAssigned, &json!({ field: lifetime })).await;
        }
    }
}

/// Memory does not depend on what an identity service sends.
#[tokio::test]
async fn endless_identity_response_is_unavailable() {
    let destination = Destination::start(|_| Reply::status(201)).await;
    let response = json!({ "access_token": "a".repeat(4 * MIB), "expires_in": 3600 }).to_string();
    let identities = Responder::start(move |_| Reply::status(200).body(&response)).await;
    let error = destination.sink(&identities, Identity::SystemAssigned).prepare(&log()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(destination.tokens().is_empty());
}

/// A new token that cannot be obtained is the identity service's failure, which is retried.
#[tokio::test]
async fn failed_replacement_of_a_token_is_transient() {
    let responses = Mutex::new(vec![
        Reply::status(500),
        Reply::status(200).body(json!({ "access_token": "token1", "expires_in": 3600 })),
    ]);
    let identities = Responder::start(move |_| responses.lock().unwrap().pop().unwrap()).await;
    let destination = Destination::start(refuse(&["token1"])).await;
    let sink = destination.sink(&identities, Identity::SystemAssigned);
    let error = sink.prepare(&log()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
