//! A DICOMweb server on the loopback interface that sends given responses in small pieces.

use std::sync::{Arc, LazyLock, Mutex};

use dicom_export::DicomWebSource;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Returns the content type and body for a path with its query, or `None` for an empty response.
pub(crate) type Responses = Arc<dyn Fn(&str) -> Option<(String, Vec<u8>)> + Send + Sync>;

struct Server {
    source: DicomWebSource,
    responses: Arc<Mutex<Responses>>,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let responses: Arc<Mutex<Responses>> = Arc::new(Mutex::new(Arc::new(|_| None)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let root = format!("http://{}/dicom-web", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let serving = Arc::clone(&responses);
    super::RUNTIME.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((connection, _)) = listener.accept().await {
            let responses = Arc::clone(&serving);
            // An error means that the client has disconnected.
            tokio::spawn(async move { serve(connection, &responses).await });
        }
    });
    let source = DicomWebSource::builder(root).build().unwrap();
    Server { source, responses }
});

/// A source that uses the server, which sends these responses from now on.
pub(crate) fn source_for(responses: Responses) -> &'static DicomWebSource {
    let server = &*SERVER;
    *server.responses.lock().unwrap() = responses;
    &server.source
}

async fn serve(connection: TcpStream, responses: &Mutex<Responses>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut connection = BufReader::new(connection);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if connection.read_line(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let responses = Arc::clone(&responses.lock().unwrap());
        let Some((kind, body)) = responses(&path) else {
            connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
            continue;
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut out = head.into_bytes();
        // Some pieces are small, so that delimiters and headers are cut; few, so that it does not take long.
        let (mut rest, mut size) = (&body[..], 1);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(size.min(rest.len()));
            out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            out.extend_from_slice(piece);
            out.extend_from_slice(b"\r\n");
            (rest, size) = (behind, size % 4099 * 2 + 1);
        }
        out.extend_from_slice(b"0\r\n\r\n");
        connection.write_all(&out).await?;
    }
}
