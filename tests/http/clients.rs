//! Clients that are slow, that send too much, that go away, and that are many.

use std::time::Duration;

use bytes::Bytes;
use dicom_export::http::HttpOptions;
use reqwest::{Body, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Gated, Server, archive, engine, everything, of};

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_its_length_is_stated_or_not() {
    let options = HttpOptions::new().body_limit(1000);
    let server = Server::of(&engine(archive(3), Gated::open()), options).await;
    let padded = |length: usize| {
        let body = everything().to_string();
        let padding = " ".repeat(length - body.len());
        format!("{body}{padding}")
    };
    let post = |body: Body| {
        server.send(
            server.request(Method::POST, "/v1/export").header("content-type", "application/json").body(body),
        )
    };
    assert_eq!(post(padded(1000).into()).await.status, StatusCode::ACCEPTED);
    assert!(post(padded(1001).into()).await.problem(413).contains("1000 bytes"));
    let chunks = |body: String| {
        let chunks: Vec<_> = body.into_bytes().chunks(100).map(Bytes::copy_from_slice).collect();
        Body::wrap_stream(futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    };
    assert_eq!(post(chunks(padded(1000))).await.status, StatusCode::ACCEPTED);
    post(chunks(padded(1001))).await.problem(413);
}

#[tokio::test]
async fn the_limit_is_16_mebibytes_by_default() {
    let server = Server::of(&engine(archive(3), Gated::open()), HttpOptions::new()).await;
    let head = format!(
        "POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        (16 << 20) + 1
    );
    // The answer comes before the body is sent.
    let answer = raw(&server, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let values: Vec<_> = (0..80_000)
        .map(|n| format!("1.2.0/1.2.0.0/1.2.840.113619.2.55.3.604688119.971.1234567890.{n}"))
        .collect();
    let body = of(serde_json::json!(values));
    assert!(body.to_string().len() < 16 << 20);
    let id = server.start("/v1/export", &body).await;
    server.delete(&format!("/v1/operations/{id}")).await;
    server.ended(&format!("/v1/operations/{id}")).await;
}

#[tokio::test]
async fn a_body_that_never_ends_meets_the_limit_and_a_slow_one_the_clock() {
    let options = HttpOptions::new().body_limit(1 << 20).body_timeout(Duration::from_millis(300));
    let server = Server::of(&engine(archive(3), Gated::open()), options).await;
    let post = |body: Body| {
        server.send(
            server.request(Method::POST, "/v1/export").header("content-type", "application/json").body(body),
        )
    };
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192])));
    post(Body::wrap_stream(endless)).await.problem(413);

    // It begins, and never goes on.
    let stuck = b"POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = raw(&server, stuck).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("application/problem+json"), "{answer}");
    // It goes on for ever, a byte at a time.
    let drip = futures::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    post(Body::wrap_stream(drip)).await.problem(408);
    assert_eq!(server.get("/operations").await.body["operations"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_has_started_a_whole_operation_or_none() {
    let sink = Gated::open();
    // The limit's place is given back as well.
    let server = Server::of(&engine(archive(3), sink.clone()), HttpOptions::new().max_running(1000)).await;
    let body = everything().to_string();
    let request = format!(
        "POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let cuts = (0..request.len()).step_by(7).chain([request.len(); 50]);
    for (nth, cut) in cuts.enumerate() {
        let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        stream.write_all(&request.as_bytes()[..cut]).await.unwrap();
        if nth % 2 == 0 {
            tokio::task::yield_now().await;
        }
        drop(stream);
    }
    // Another's request comes after them.
    let id = server.start("/v1/export", &everything()).await;
    server.ended(&format!("/v1/operations/{id}")).await;
    let operations = server.get("/v1/operations?limit=1000").await.body["operations"].clone();
    for operation in operations.as_array().unwrap() {
        let id = operation["operationId"].as_str().unwrap();
        let ended = server.ended(&format!("/v1/operations/{id}")).await;
        assert_eq!((ended["status"].as_str().unwrap(), sink.blobs(id)), ("completed", 9));
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_while_its_destination_is_tried_has_started_it() {
    let sink =
        SlowToOpen { gate: Gated::open(), opening: std::sync::Arc::default(), go: std::sync::Arc::default() };
    let server = Server::of(&engine(archive(3), sink.clone()), HttpOptions::new().max_running(1)).await;
    let request = server.request(Method::POST, "/v1/export").json(&everything()).build().unwrap();
    let client = server.client.clone();
    let waiting = tokio::spawn(async move { client.execute(request).await });
    sink.opening.notified().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // It keeps its place meanwhile.
    server.post("/v1/export", &everything()).await.problem(429);
    sink.go.notify_one();
    let id = loop {
        let listed = server.get("/v1/operations").await.body;
        if let Some(id) = listed["operations"][0]["operationId"].as_str() {
            break id.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(server.ended(&format!("/v1/operations/{id}")).await["results"]["exported"], 9);
    assert_eq!(sink.gate.blobs(&id), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_polls_at_once_while_an_export_runs() {
    let sink = Gated::shut();
    let server = Server::of(&engine(archive(300), sink.clone()), HttpOptions::new()).await;
    let id = server.start("/v1/export", &everything()).await;
    let path = format!("/v1/operations/{id}");
    let polls = (0..1000).map(|_| async { server.get(&path).await.status });
    let statuses = futures::future::join_all(polls).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::ACCEPTED));
    sink.set(true);
    let polls = (0..1000).map(|_| async { server.get(&path).await.status });
    for status in futures::future::join_all(polls).await {
        assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::OK));
    }
    assert_eq!(server.ended(&path).await["results"]["exported"], 900);
}

/// Sends bytes, and reads until the server closes or has answered.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A container that takes its time to be tried.
#[derive(Clone)]
struct SlowToOpen {
    gate: Gated,
    opening: std::sync::Arc<tokio::sync::Notify>,
    go: std::sync::Arc<tokio::sync::Notify>,
}

#[async_trait::async_trait]
impl dicom_export::SinkProvider for SlowToOpen {
    fn validate(
        &self,
        settings: &serde_json::Value,
    ) -> dicom_export::Result<dicom_export::sink::ValidatedSettings> {
        self.gate.validate(settings)
    }

    async fn open(
        &self,
        operation: &dicom_export::OperationSpec,
        secret: Option<&dicom_export::sink::Secret>,
    ) -> dicom_export::Result<std::sync::Arc<dyn dicom_export::BlobSink>> {
        if self.gate.inner.names().is_empty() {
            self.opening.notify_one();
            self.go.notified().await;
        }
        self.gate.open(operation, secret).await
    }
}
