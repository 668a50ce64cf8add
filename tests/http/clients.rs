//! Clients that are slow, send too much or disconnect, and many concurrent clients.

use std::time::Duration;

use bytes::Bytes;
use dicom_export::http::HttpOptions;
use dicom_export::store::MemoryOperationStore;
use reqwest::{Body, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{GatedSink, Server, archive, builder_over, engine, export_everything, export_of};

#[tokio::test]
async fn a_body_above_the_limit_is_413_with_and_without_a_declared_length() {
    let options = HttpOptions::new().body_limit(1000);
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), options).await;
    let padded = |length: usize| {
        let body = export_everything().to_string();
        let padding = " ".repeat(length - body.len());
        format!("{body}{padding}")
    };
    let post = |body: Body| {
        server.send(
            server.request(Method::POST, "/v1/export").header("content-type", "application/json").body(body),
        )
    };
    assert_eq!(post(padded(1000).into()).await.status, StatusCode::ACCEPTED);
    assert!(post(padded(1001).into()).await.assert_problem(413).contains("1000 bytes"));
    let chunks = |body: String| {
        let chunks: Vec<_> = body.into_bytes().chunks(100).map(Bytes::copy_from_slice).collect();
        Body::wrap_stream(futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>)))
    };
    assert_eq!(post(chunks(padded(1000))).await.status, StatusCode::ACCEPTED);
    post(chunks(padded(1001))).await.assert_problem(413);
}

#[tokio::test]
async fn the_limit_is_16_mebibytes_by_default() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let head = format!(
        "POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        (16 << 20) + 1
    );
    // The response is sent before the body.
    let response = raw(&server, head.as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    let values: Vec<_> = (0..80_000)
        .map(|n| format!("1.2.0/1.2.0.0/1.2.840.113619.2.55.3.604688119.971.1234567890.{n}"))
        .collect();
    let body = export_of(serde_json::json!(values));
    assert!(body.to_string().len() < 16 << 20);
    let id = server.export("/v1/export", &body).await;
    server.delete(&format!("/v1/operations/{id}")).await;
    server.wait(&format!("/v1/operations/{id}")).await;
}

#[tokio::test]
async fn the_memory_of_concurrent_bodies_is_bounded() {
    let options = HttpOptions::new().body_memory(1 << 20);
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), options).await;
    // A client has sent most of a large body.
    let length = 900 << 10;
    let head = format!(
        "POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let post = |length: usize| {
        let body = export_everything().to_string();
        let body = format!("{body}{}", " ".repeat(length - body.len()));
        server.send(
            server.request(Method::POST, "/v1/export").header("content-type", "application/json").body(body),
        )
    };
    // Once the first body has been received, another large one does not fit. Small ones always fit.
    let slow = 'connected: loop {
        let mut slow = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        slow.write_all(head.as_bytes()).await.unwrap();
        slow.write_all(&vec![b' '; length - 1]).await.unwrap();
        loop {
            let response = post(300 << 10).await;
            if response.status != StatusCode::ACCEPTED {
                assert!(response.assert_problem(503).contains("large bodies"));
                assert_eq!(response.header("retry-after"), "5");
                break 'connected slow;
            }
            // The other body was received first, and the first one did not fit.
            if slow.try_read(&mut [0]).is_ok() {
                break;
            }
        }
    };
    assert_eq!(post(64 << 10).await.status, StatusCode::ACCEPTED);
    // The memory is released with the body.
    drop(slow);
    let released = async { while post(300 << 10).await.status != StatusCode::ACCEPTED {} };
    timeout(Duration::from_secs(60), released).await.expect("the memory is released");
}

#[tokio::test]
async fn an_endless_body_is_413_and_a_slow_one_408() {
    let options = HttpOptions::new().body_limit(1 << 20).body_timeout(Duration::from_millis(300));
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), options).await;
    let post = |body: Body| {
        server.send(
            server.request(Method::POST, "/v1/export").header("content-type", "application/json").body(body),
        )
    };
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192])));
    post(Body::wrap_stream(endless)).await.assert_problem(413);

    // The client stops after the first byte of the body.
    let stuck = b"POST /v1/export HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let response = raw(&server, stuck).await;
    assert!(
        response.starts_with("HTTP/1.1 408 ") && response.contains("application/problem+json"),
        "{response}"
    );
    // The client sends one byte at a time, endlessly.
    let drip = futures::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), ()))
    });
    post(Body::wrap_stream(drip)).await.assert_problem(408);
    assert_eq!(server.get("/operations").await.body["operations"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_client_that_disconnects_has_started_a_whole_operation_or_none() {
    let sink = GatedSink::new(true);
    // The place under the limit on running operations is released too.
    let engine = builder_over(archive(3), sink.clone(), MemoryOperationStore::new())
        .max_running(1000)
        .build()
        .unwrap();
    let server = Server::start(&engine, HttpOptions::new()).await;
    let body = export_everything().to_string();
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
    // This request is processed after all others.
    let id = server.export("/v1/export", &export_everything()).await;
    server.wait(&format!("/v1/operations/{id}")).await;
    let operations = server.get("/v1/operations?limit=1000").await.body["operations"].clone();
    for operation in operations.as_array().unwrap() {
        let id = operation["operationId"].as_str().unwrap();
        let ended = server.wait(&format!("/v1/operations/{id}")).await;
        assert_eq!((ended["status"].as_str().unwrap(), sink.blobs(id)), ("completed", 9));
    }
}

#[tokio::test]
async fn an_operation_starts_although_its_client_disconnects_while_the_destination_is_tested() {
    let sink = SlowToOpen {
        gate: GatedSink::new(true),
        opening: std::sync::Arc::default(),
        go: std::sync::Arc::default(),
    };
    let engine =
        builder_over(archive(3), sink.clone(), MemoryOperationStore::new()).max_running(1).build().unwrap();
    let server = Server::start(&engine, HttpOptions::new()).await;
    let request = server.request(Method::POST, "/v1/export").json(&export_everything()).build().unwrap();
    let client = server.client.clone();
    let waiting = tokio::spawn(async move { client.execute(request).await });
    sink.opening.notified().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // The operation counts towards the limit in the meantime.
    server.post("/v1/export", &export_everything()).await.assert_problem(429);
    sink.go.notify_one();
    let id = loop {
        let listed = server.get("/v1/operations").await.body;
        if let Some(id) = listed["operations"][0]["operationId"].as_str() {
            break id.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(server.wait(&format!("/v1/operations/{id}")).await["results"]["exported"], 9);
    assert_eq!(sink.gate.blobs(&id), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_polls_during_an_export_succeed() {
    let sink = GatedSink::new(false);
    let server = Server::start(&engine(archive(300), sink.clone()), HttpOptions::new()).await;
    let id = server.export("/v1/export", &export_everything()).await;
    let path = format!("/v1/operations/{id}");
    let polls = (0..1000).map(|_| async { server.get(&path).await.status });
    let statuses = futures::future::join_all(polls).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::ACCEPTED));
    sink.set_open(true);
    let polls = (0..1000).map(|_| async { server.get(&path).await.status });
    for status in futures::future::join_all(polls).await {
        assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::OK));
    }
    assert_eq!(server.wait(&path).await["results"]["exported"], 900);
}

/// Sends bytes, and reads the response until the server closes the connection.
async fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// A container that opens when `go` is notified.
#[derive(Clone)]
struct SlowToOpen {
    gate: GatedSink,
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
