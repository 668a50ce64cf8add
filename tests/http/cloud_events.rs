//! The events that the example server sends to a URL.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dicom_export::store::{MemoryOperationStore, OperationFilter, OperationStore};
use dicom_export::{ExportEngine, ExportSource, MemorySink, NewOperation, OperationContext, OperationStatus};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::server::example::cloud_events::CloudEvents;
use crate::support::archive;

const KEY: &[u8] = b"a key that the receiver knows";

type Received = Arc<Mutex<Vec<(HeaderMap, String)>>>;

/// A receiver on a free port. It refuses the first requests.
struct Receiver {
    url: String,
    received: Received,
    task: AbortHandle,
}

impl Receiver {
    async fn start(refusals: usize) -> Self {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events?token=hidden", listener.local_addr().unwrap());
        let requests = Arc::clone(&received);
        let accept = async move |headers: HeaderMap, body: String| {
            let mut requests = requests.lock().unwrap();
            requests.push((headers, body));
            match requests.len() > refusals {
                true => StatusCode::NO_CONTENT,
                false => StatusCode::SERVICE_UNAVAILABLE,
            }
        };
        let app = Router::new().route("/events", post(accept));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }).abort_handle();
        Self { url, received, task }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn the_end_of_an_operation_is_sent_until_it_is_accepted() {
    let receiver = Receiver::start(2).await;
    let store = Arc::new(MemoryOperationStore::new());
    let events = CloudEvents::new(&receiver.url, "https://pacs.example", KEY).unwrap();
    assert!(!format!("{events:?}").contains("hidden"));
    let engine = ExportEngine::builder(archive(3))
        .operation_store(Arc::clone(&store))
        .observer(events)
        .takeover_interval(Some(Duration::from_millis(20)))
        .build()
        .unwrap();
    let context = OperationContext::default().with_partition("north").with_caller("alice");
    let new = NewOperation::new(ExportSource::Everything, MemorySink::new()).with_context(context);
    let id = engine.start(new).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    let pending = OperationFilter::new(1).end_pending_only();
    while store.count(&pending).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let received = receiver.received.lock().unwrap().clone();
    assert_eq!(received.len(), 3, "two are refused, and the third is accepted");
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    for (headers, body) in &received {
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("ce-specversion"), "1.0");
        assert_eq!(header("ce-type"), "dicom-export.operation.ended.v1");
        assert_eq!(header("ce-source"), "https://pacs.example");
        assert_eq!(header("ce-subject"), id.to_string());
        assert_eq!(header("ce-time"), ended.last_updated_time.to_string());
        assert_eq!(headers["ce-id"], received[0].0["ce-id"], "a repetition has the same id");
        let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
        let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
        let signature = BASE64_STANDARD.decode(signature).unwrap();
        hmac::verify(&key, signed.as_bytes(), &signature).expect("the signature is that of the event");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body, json!({ "operation": ended, "partition": "north", "caller": "alice" }));
    }
    engine.shutdown(Duration::ZERO).await;
}

#[test]
fn an_invalid_url_or_key_is_refused_without_quoting_it() {
    for (url, key) in [("ftp://hidden", KEY), ("hidden", KEY), ("https://a.example", b"short-hidden")] {
        let error = CloudEvents::new(url, "source", key).unwrap_err();
        assert!(!format!("{error:?}").contains("hidden"));
    }
}
