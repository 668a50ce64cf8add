//! A small HTTP/1.1 server whose responses a test decides, for faults that a real server cannot produce on demand.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request that was read completely.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn has_comp(&self, comp: &str) -> bool {
        self.query.get("comp").is_some_and(|value| value == comp)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Response {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// Closes the connection without a response.
    Disconnect,
    /// Keeps the connection open without a response.
    Hang,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Response { status, headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn code(status: u16, code: &str) -> Self {
        Self::status(status).header("x-ms-error-code", code)
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        if let Self::Response { headers, .. } = &mut self {
            headers.push((name, value.to_string()));
        }
        self
    }

    pub(crate) fn body(mut self, text: impl ToString) -> Self {
        if let Self::Response { body, .. } = &mut self {
            *body = text.to_string();
        }
        self
    }
}

/// A running server, which records its requests; it ends when this value is dropped.
pub(crate) struct Responder {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Responder {
    pub(crate) async fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, reply) = (Arc::new(Mutex::default()), Arc::new(reply));
        let mut tasks = JoinSet::new();
        let recorded = Arc::clone(&requests);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let (recorded, reply) = (Arc::clone(&recorded), Arc::clone(&reply));
                connections.spawn(async move {
                    // Errors are expected: clients are dropped in the middle of requests.
                    let _ = serve(connection, &recorded, &*reply).await;
                });
            }
        });
        Self { port, requests, connections: accepted, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The number of connections that were made to the server.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

async fn serve(
    connection: TcpStream,
    recorded: &Mutex<Vec<Request>>,
    reply: &(impl Fn(&Request) -> Reply + Sync),
) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let target = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let request = Request { path: path.to_owned(), query, headers, body: body.into() };
        let reply = reply(&request);
        recorded.lock().unwrap().push(request);
        let (status, headers, body) = match reply {
            Reply::Response { status, headers, body } => (status, headers, body),
            Reply::Disconnect => return Ok(()),
            Reply::Hang => std::future::pending().await,
        };
        let mut out = format!("HTTP/1.1 {status} Reason\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        out.push_str("\r\n");
        out.push_str(&body);
        connection.write_all(out.as_bytes()).await?;
    }
}
