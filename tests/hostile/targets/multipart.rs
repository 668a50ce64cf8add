//! A DICOMweb server's response for an instance: a line with its content type, then the body.

use std::sync::Arc;

use dicom_export::InstanceSource;
use dicom_export::source::Instance;
use futures::StreamExt;

pub(crate) fn run(input: &[u8]) {
    let (kind, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], input[at + 1..].to_vec()),
        None => (input, Vec::new()),
    };
    // Header values have no other characters.
    let kind: String =
        kind.iter().filter(|b| matches!(b, b' '..=b'~')).map(|b| char::from(*b)).take(8000).collect();
    let length = body.len();
    let source = super::server::source_for(Arc::new(move |path| match path.contains("/instances/") {
        true => Some((kind.clone(), body.clone())),
        false => Some(("application/dicom+json".into(), b"[]".to_vec())),
    }));
    super::RUNTIME.block_on(async {
        let instance = Instance::new("1.2/3.4/5.6".parse().unwrap());
        let Ok(content) = source.open(&instance).await else { return };
        let (mut stream, mut seen) = (content.into_stream(), 0);
        while let Some(Ok(chunk)) = stream.next().await {
            assert!(!chunk.is_empty());
            seen += chunk.len();
        }
        assert!(seen <= length, "the content is longer than the response");
        assert!(stream.next().await.is_none(), "the stream continues after an error");
    });
}
