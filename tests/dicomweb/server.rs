//! A scripted DICOMweb server. It writes HTTP/1.1 itself, so that it can stop at any byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dicom_export::InstanceIdentifier;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) type Archive = BTreeMap<InstanceIdentifier, Bytes>;

/// A received request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Below the service root: `studies/…`.
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// The framing of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Framing {
    Length,
    Chunked(usize),
    /// Neither: the body ends with the connection.
    Close,
    /// With a length; the connection is closed after this number of bytes.
    CutAt(usize),
    /// In chunks; the connection is closed after this number of bytes.
    ChunkedCutAt(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) framing: Framing,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), framing: Framing::Length }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    pub(crate) fn html() -> Self {
        Self::new(200).header("content-type", "text/html").body("<html>please sign in</html>")
    }

    pub(crate) fn json(rows: &[Value]) -> Self {
        let body = serde_json::to_vec(rows).unwrap();
        Self::new(200).header("content-type", "application/dicom+json").body(body)
    }

    /// An instance as a multipart body.
    pub(crate) fn multipart(bytes: &[u8]) -> Self {
        let head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n";
        let body = [head, bytes, b"\r\n--edge--\r\n"].concat();
        Self::new(200)
            .header("content-type", r#"multipart/related; type="application/dicom"; boundary=edge"#)
            .body(body)
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(handler);
        let (seen, scheme) = (Arc::clone(&requests), if tls.is_some() { "https" } else { "http" });
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Small writes are sent without delay.
                stream.set_nodelay(true).unwrap();
                let (handler, seen, tls) = (Arc::clone(&handler), Arc::clone(&seen), tls.clone());
                // The client sees the errors of its connection.
                tokio::spawn(async move {
                    match tls {
                        None => _ = serve(stream, handler, seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                _ = serve(stream, handler, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, scheme, requests, accepting }
    }

    pub(crate) fn root(&self) -> String {
        format!("{}://{}/dicom-web", self.scheme, self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    handler: Handler,
    seen: Arc<Mutex<Vec<Request>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let target = line.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut request = Request {
            path: path.trim_start_matches("/dicom-web/").to_owned(),
            query: query.split('&').filter_map(|pair| pair.split_once('=')).map(owned).collect(),
            headers: BTreeMap::new(),
        };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => {
                    request.headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                None => break,
            }
        }
        seen.lock().unwrap().push(request.clone());
        if !write_reply(&mut stream, handler(&request)).await? {
            return Ok(());
        }
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Writes a reply. Returns whether the connection stays open.
async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> std::io::Result<bool> {
    let mut head = format!("HTTP/1.1 {} Reason\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &match reply.framing {
        Framing::Length | Framing::CutAt(_) => format!("content-length: {}\r\n", reply.body.len()),
        Framing::Chunked(_) | Framing::ChunkedCutAt(_) => "transfer-encoding: chunked\r\n".to_owned(),
        Framing::Close => "connection: close\r\n".to_owned(),
    };
    head += "\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut keep_open = true;
    match reply.framing {
        Framing::Length => stream.write_all(&reply.body).await?,
        Framing::Close => {
            stream.write_all(&reply.body).await?;
            keep_open = false;
        }
        Framing::CutAt(at) => {
            stream.write_all(&reply.body[..at]).await?;
            keep_open = false;
        }
        Framing::Chunked(size) => {
            for chunk in reply.body.chunks(size) {
                write_chunk(stream, chunk).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Framing::ChunkedCutAt(at) => {
            write_chunk(stream, &reply.body[..at]).await?;
            keep_open = false;
        }
    }
    stream.flush().await?;
    if !keep_open {
        stream.shutdown().await?;
    }
    Ok(keep_open)
}

async fn write_chunk(stream: &mut (impl AsyncWrite + Unpin), chunk: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
    stream.write_all(chunk).await?;
    stream.write_all(b"\r\n").await
}

/// How a server deviates in its responses to queries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quirks {
    /// The maximum number of rows of a page, regardless of the `limit`.
    pub(crate) cap: Option<usize>,
    pub(crate) ignores_limit: bool,
    pub(crate) ignores_offset: bool,
    /// It ignores a UID in the query.
    pub(crate) ignores_match: bool,
    /// Each row is repeated.
    pub(crate) doubles: bool,
    /// It states the number of instances of studies and series, increased by this number.
    pub(crate) counts: Option<u32>,
    /// It returns 404 below an unknown study or series, and 204 for an empty list.
    pub(crate) strict: bool,
    /// Bodies in chunks of this size.
    pub(crate) chunks: Option<usize>,
}

/// The response of a server with this archive.
pub(crate) fn dicomweb(archive: &Archive, quirks: Quirks, request: &Request) -> Reply {
    let reply = match *request.path.split('/').collect::<Vec<_>>() {
        ["studies", study, "series", series, "instances", sop] => {
            let found = archive.get(&format!("{study}/{series}/{sop}").parse().unwrap());
            found.map_or_else(|| Reply::new(404).body("gone"), |bytes| Reply::multipart(bytes))
        }
        ["studies"] => rows(archive, quirks, request, [None, None]),
        ["studies", study, "series"] => rows(archive, quirks, request, [Some(study), None]),
        ["studies", study, "series", series, "instances"] => {
            rows(archive, quirks, request, [Some(study), Some(series)])
        }
        _ => Reply::new(400),
    };
    match quirks.chunks {
        Some(size) if reply.status != 204 => reply.framing(Framing::Chunked(size)),
        _ => reply,
    }
}

fn rows(archive: &Archive, quirks: Quirks, request: &Request, [study, series]: [Option<&str>; 2]) -> Reply {
    let uids = |of: &InstanceIdentifier| {
        [of.study_instance_uid(), of.series_instance_uid(), of.sop_instance_uid()].map(ToString::to_string)
    };
    let under = archive.keys().map(uids).filter(|[of_study, of_series, _]| {
        study.is_none_or(|study| study == of_study) && series.is_none_or(|series| series == of_series)
    });
    let level = usize::from(study.is_some()) + usize::from(series.is_some());
    let mut found = BTreeMap::<String, ([String; 3], u32)>::new();
    for uids in under {
        found.entry(uids[level].clone()).or_insert((uids, 0)).1 += 1;
    }
    if found.is_empty() && quirks.strict && level > 0 {
        return Reply::new(404);
    }
    let key = ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"][level];
    if let Some(expected) = request.query.get(key).filter(|_| !quirks.ignores_match) {
        found.retain(|uid, _| uid == expected);
    }
    // A stable order other than that of the UIDs.
    let mut found: Vec<_> = found.into_values().rev().collect();
    if quirks.doubles {
        found = found.into_iter().flat_map(|row| [row.clone(), row]).collect();
    }
    let number = |name: &str| request.query[name].parse::<usize>().unwrap();
    let offset = if quirks.ignores_offset { 0 } else { number("offset").min(found.len()) };
    let limit = if quirks.ignores_limit { usize::MAX } else { number("limit") };
    let limit = limit.min(quirks.cap.unwrap_or(usize::MAX));
    let page: Vec<_> = found[offset..].iter().take(limit).collect();
    if page.is_empty() && quirks.strict {
        return Reply::new(204);
    }
    let tags = ["0020000D", "0020000E", "00080018"];
    let row = |(uids, count): &([String; 3], u32)| {
        let mut row = json!({ "00100010": { "vr": "PN", "Value": [{ "Alphabetic": "Doe^Jane" }] } });
        for at in 0..=level {
            row[tags[at]] = json!({ "vr": "UI", "Value": [uids[at]] });
        }
        if let (Some(more), Some(tag)) = (quirks.counts, ["00201208", "00201209"].get(level)) {
            row[*tag] = json!({ "vr": "IS", "Value": [count + more] });
        }
        row
    };
    Reply::json(&page.into_iter().map(row).collect::<Vec<_>>())
}
