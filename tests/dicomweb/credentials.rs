//! Credentials: which servers receive them, and that they are not printed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dicom_export::source::{DicomWebCredentials, Instance};
use dicom_export::testing::fixtures;
use dicom_export::{DicomWebSource, Error, ErrorKind, Secret};
use futures::future::join_all;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::server::{Quirks, Reply, Server, dicomweb};
use crate::{archive, read, server};

const SECRETS: [&str; 3] = ["pass-word", "t0ken", "k3y"];

fn instance() -> Instance {
    Instance::new(fixtures::instance(1, 1, 1))
}

#[tokio::test]
async fn credentials_are_sent_and_not_printed() {
    let archive = archive();
    let server = server(&archive, Quirks::default(), |request| {
        let authorized = request.headers.get("authorization").is_some_and(|value| {
            // "jane:pass-word", by base64.
            value == "Basic amFuZTpwYXNzLXdvcmQ=" || value == "Bearer t0ken"
        });
        let known = request.headers.get("x-api-key").is_some_and(|value| value == "k3y");
        (!authorized || !known).then(|| Reply::new(401))
    })
    .await;
    for credentials in [
        DicomWebCredentials::basic("jane", "pass-word"),
        DicomWebCredentials::bearer("t0ken"),
        DicomWebCredentials::renewing(|| async { Ok(Secret::new("t0ken")) }),
    ] {
        let builder = DicomWebSource::builder(server.root())
            .header("x-api-key", "k3y")
            .credentials(credentials.clone());
        let shown = format!("{builder:?} {credentials:?}");
        let source = builder.build().unwrap();
        read(&source, &instance()).await.unwrap();
        let shown = format!("{shown} {source:?}");
        assert!(!SECRETS.iter().any(|secret| shown.contains(secret)), "{shown}");
    }
    for credentials in [
        DicomWebCredentials::anonymous(),
        DicomWebCredentials::bearer("0ther"),
        DicomWebCredentials::basic("a", "b"),
    ] {
        let source = DicomWebSource::builder(server.root()).credentials(credentials).build().unwrap();
        let error = read(&source, &instance()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(!format!("{error:?}").contains("0ther"));
    }
}

#[tokio::test]
async fn guarantee_7_a_redirect_to_another_host_contains_no_credentials() {
    let archive = archive();
    let other = server(&archive, Quirks::default(), |_| None).await;
    // Another host by name, and the same host on another port.
    for host in ["localhost", "127.0.0.1"] {
        let to = format!("http://jane:pass-word@{host}:{}/dicom-web/", other.port());
        let first = server(&archive, Quirks::default(), move |request| {
            let path = request.path.clone();
            path.contains("/instances/").then(|| Reply::new(307).header("location", format!("{to}{path}")))
        })
        .await;
        let source = DicomWebSource::builder(first.root())
            .credentials(DicomWebCredentials::bearer("t0ken"))
            .header("x-api-key", "k3y")
            .build()
            .unwrap();
        assert!(read(&source, &instance()).await.unwrap() == archive[instance().identifier()]);
        let headers = &first.requests()[0].headers;
        assert_eq!((&*headers["authorization"], &*headers["x-api-key"]), ("Bearer t0ken", "k3y"));
        let seen = format!("{:?}", other.requests().last().unwrap());
        assert!(!seen.contains("authorization") && !seen.contains("x-api-key"), "{seen}");
    }

    // A redirect to the same server contains them.
    let moved = server(&archive, Quirks::default(), |request| {
        let path = request.path.strip_prefix("old/")?;
        Some(Reply::new(301).header("location", format!("/dicom-web/{path}")))
    })
    .await;
    let source = DicomWebSource::builder(format!("{}/old", moved.root()))
        .credentials(DicomWebCredentials::bearer("t0ken"))
        .build()
        .unwrap();
    read(&source, &instance()).await.unwrap();
    assert!(moved.requests().iter().all(|request| request.headers["authorization"] == "Bearer t0ken"));
    assert_eq!(moved.requests().len(), 2);
}

#[tokio::test]
async fn a_rejected_token_is_renewed() {
    let archive = archive();
    let good = Arc::new(AtomicUsize::new(1));
    let accepted = Arc::clone(&good);
    let server = server(&archive, Quirks::default(), move |request| {
        let expected = format!("Bearer t0ken-{}", accepted.load(SeqCst));
        (request.headers.get("authorization") != Some(&expected)).then(|| Reply::new(401))
    })
    .await;
    let renewals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&renewals);
    let renewing = DicomWebCredentials::renewing(move || {
        let number = count.fetch_add(1, SeqCst) + 1;
        async move { Ok(Secret::new(format!("t0ken-{number}"))) }
    });
    let source = DicomWebSource::builder(server.root()).credentials(renewing).build().unwrap();
    let instance = instance();
    read(&source, &instance).await.unwrap();
    read(&source, &instance).await.unwrap();
    assert_eq!(renewals.load(SeqCst), 1);

    // The first token has expired. Concurrent requests share one new token.
    good.store(2, SeqCst);
    for outcome in join_all((0..10).map(|_| read(&source, &instance))).await {
        outcome.unwrap();
    }
    assert_eq!(renewals.load(SeqCst), 2);

    // A renewed token that is rejected too is an error.
    good.store(0, SeqCst);
    assert_eq!(read(&source, &instance).await.unwrap_err().kind(), ErrorKind::Unauthorized);
    assert_eq!(renewals.load(SeqCst), 3);
}

#[tokio::test]
async fn a_failed_token_renewal_skips_no_instance() {
    let archive = archive();
    let server = server(&archive, Quirks::default(), |_| None).await;
    for (kind, seen) in [
        (ErrorKind::NotFound, ErrorKind::Unauthorized),
        (ErrorKind::Internal, ErrorKind::Unauthorized),
        (ErrorKind::Unavailable, ErrorKind::Unavailable),
    ] {
        let failing = DicomWebCredentials::renewing(move || async move { Err(Error::new(kind, "no")) });
        let source = DicomWebSource::builder(server.root()).credentials(failing).build().unwrap();
        assert_eq!(read(&source, &instance()).await.unwrap_err().kind(), seen);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_custom_root_certificate_is_trusted() {
    let archive = archive();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let served = Arc::clone(&archive);
    let server = Server::start_with(Some(TlsAcceptor::from(Arc::new(config))), move |request| {
        dicomweb(&served, Quirks::default(), request)
    })
    .await;
    let trusting = DicomWebSource::builder(server.root()).root_certificate(made.cert.pem()).build().unwrap();
    assert!(read(&trusting, &instance()).await.unwrap() == archive[instance().identifier()]);
    let untrusting = DicomWebSource::builder(server.root()).build().unwrap();
    assert_eq!(read(&untrusting, &instance()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn invalid_settings_are_rejected() {
    let builder = || DicomWebSource::builder("https://pacs.example/dicom-web");
    assert!(builder().build().is_ok());
    for unusable in [
        DicomWebSource::builder("pacs.example/dicom-web"),
        DicomWebSource::builder("ftp://pacs.example/dicom-web"),
        DicomWebSource::builder("https://jane:pass-word@pacs.example/dicom-web"),
        DicomWebSource::builder("https://pacs.example/dicom-web?key=k3y"),
        builder().header("x-api-key", "k3y\r\n"),
        builder().header("x api key", "k3y"),
        builder().credentials(DicomWebCredentials::bearer("t0ken\n")),
        builder().credentials(DicomWebCredentials::bearer("")),
        builder().credentials(DicomWebCredentials::basic("a:b", "pass-word")),
        builder().root_certificate("no certificate"),
    ] {
        let error = unusable.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!SECRETS.iter().any(|secret| format!("{error:?}").contains(secret)), "{error:?}");
    }
}
