//! A request to the router: a line `METHOD target`, headers, an empty line, a body.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use dicom_export::http::{self, BaseUrl, HttpOptions};
use dicom_export::{ExportEngine, MemorySink, MemorySource, RetryPolicy};
use tower::ServiceExt;

pub(crate) fn run(input: &[u8]) {
    let Some(request) = read(input) else { return };
    super::RUNTIME.block_on(async {
        let engine = ExportEngine::builder(MemorySource::new())
            .destination("azureblob", MemorySink::new().provider())
            .retry(RetryPolicy::none())
            .build()
            .unwrap();
        let options = HttpOptions::new().base_url(BaseUrl::Forwarded).body_limit(64 << 10);
        let router = http::router(engine.clone(), options);
        let response = router.oneshot(request).await.unwrap();
        assert!(response.status().as_u16() < 500, "{}", response.status());
        let headers: usize = response.headers().values().map(|value| value.len()).sum();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        // Only the host and the path in links are as long as the request makes them.
        assert!(body.len() + headers <= 4096 + 8 * input.len().min(16 << 10), "{} bytes", body.len());
        engine.shutdown(Duration::from_secs(5)).await;
    });
}

/// `None`: the HTTP implementation would refuse it.
fn read(input: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match input.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&input[..at], &input[at + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines.take(100) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(Body::from(body.to_vec())).ok()
}
