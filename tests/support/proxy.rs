//! A TCP proxy in front of an HTTP server: it records requests, and delays, corrupts, drops or responds to them.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    /// After this number of requests, requests for instances wait until the mode changes.
    HoldAfter(usize),
    /// Closes every connection, including new ones.
    Disconnect,
}

/// What the proxy does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Forward,
    /// Responds with this status line and these headers. The request does not reach the server.
    Respond(&'static str),
    /// Responds with this status line and these headers, and an XML document. The request does not reach the server.
    RespondXml(&'static str, &'static str),
    /// Closes the connection. The request does not reach the server.
    Disconnect,
    /// Forwards the request, and closes the connection instead of forwarding the response.
    DropResponse,
}

/// Decides by the number of a request, from 1, and its head.
type Decide = dyn Fn(usize, &str) -> Action + Send + Sync;

/// Requests with `text` in their head.
#[derive(Default)]
struct First {
    text: String,
    /// The number of these requests that have not arrived.
    missing: usize,
}

/// A running proxy; dropping it closes its connections.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: u16,
    /// `<method> <path>` of each request whose head has arrived.
    requests: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    mode: watch::Sender<Mode>,
    /// Requests that are forwarded before others are held.
    first: Mutex<First>,
    decide: Mutex<Arc<Decide>>,
    /// The number of requests for instances whose body is still to be corrupted.
    corruptions: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy in front of the server on this port.
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            requests: Mutex::default(),
            count: watch::Sender::new(0),
            mode: watch::Sender::new(Mode::Forward),
            first: Mutex::default(),
            decide: Mutex::new(Arc::new(|_, _| Action::Forward)),
            corruptions: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move {
                    let mut mode = shared.mode.subscribe();
                    tokio::select! {
                        // Errors are expected: tests kill clients and servers.
                        _ = shared.pass(client) => {}
                        _ = mode.wait_for(|mode| *mode == Mode::Disconnect) => {}
                    }
                });
            }
        });
        Self { port, shared, _tasks: tasks }
    }

    /// The same URL through the proxy.
    pub(crate) fn through(&self, url: &str) -> String {
        let mut url = reqwest::Url::parse(url).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// In the mode [`Mode::HoldAfter`], holds nothing before `count` requests with this text in their head have arrived, and
    /// never holds these.
    pub(crate) fn forward_first(&self, text: impl Into<String>, count: usize) {
        *self.shared.first.lock().unwrap() = First { text: text.into(), missing: count };
    }

    /// Applies an action to the first three requests, and to one in `one_in` of the others at random. Returns their number.
    pub(crate) fn fail_some(&self, action: Action, one_in: u64) -> Arc<AtomicUsize> {
        let failed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&failed);
        // Seeded by the request's number, so that every run is the same.
        self.on_request(move |number, _| {
            if number >= 4 && fastrand::Rng::with_seed(number as u64).u64(..one_in) > 0 {
                return Action::Forward;
            }
            count.fetch_add(1, SeqCst);
            action
        });
        failed
    }

    /// Decides about all further requests.
    pub(crate) fn on_request(&self, decide: impl Fn(usize, &str) -> Action + Send + Sync + 'static) {
        *self.shared.decide.lock().unwrap() = Arc::new(decide);
    }

    /// Flips one bit in the body of each of the next `requests` requests for instances.
    pub(crate) fn corrupt_next(&self, requests: usize) {
        self.shared.corruptions.store(requests, SeqCst);
    }

    /// The number of requests that are still to be corrupted.
    pub(crate) fn remaining_corruptions(&self) -> usize {
        self.shared.corruptions.load(SeqCst)
    }

    /// All requests so far, as `<method> <path>`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until `count` requests have arrived in total. Panics after three minutes.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let mut arrived = self.shared.count.subscribe();
        let all = arrived.wait_for(|arrived| *arrived >= count);
        if tokio::time::timeout(Duration::from_secs(180), all).await.is_err() {
            panic!("{} of {count} requests have arrived", self.requests().len());
        }
    }
}

impl Shared {
    async fn pass(&self, client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let to_client = tokio::sync::Mutex::new(to_client);
        let responses = async {
            let mut buffer = vec![0; 1 << 16];
            loop {
                match from_server.read(&mut buffer).await? {
                    0 => return Ok(()),
                    length => to_client.lock().await.write_all(&buffer[..length]).await?,
                }
            }
        };
        tokio::select! {
            ended = responses => ended,
            ended = self.requests(BufReader::new(from_client), to_server, &to_client) => ended,
        }
    }

    async fn requests(
        &self,
        mut client: impl AsyncBufReadExt + Unpin,
        mut server: impl AsyncWriteExt + Unpin,
        to_client: &tokio::sync::Mutex<impl AsyncWriteExt + Unpin>,
    ) -> std::io::Result<()> {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if client.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let number = self.record(&head);
            let is_instance = head.contains("/results/");
            if is_instance && self.may_be_held(&head) {
                let passes = |mode: &Mode| !matches!(mode, Mode::HoldAfter(last) if number > *last);
                let _ = self.mode.subscribe().wait_for(passes).await;
            }
            let length = head.lines().filter_map(|line| line.split_once(": "));
            let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.next().map_or(0, |(_, length)| length.parse().unwrap());
            let decide = Arc::clone(&self.decide.lock().unwrap());
            let mut body = (&mut client).take(length);
            match decide(number, &head) {
                Action::Forward => {
                    server.write_all(head.as_bytes()).await?;
                    let next = |left: usize| left.checked_sub(1);
                    if is_instance
                        && length > 0
                        && self.corruptions.fetch_update(SeqCst, SeqCst, next).is_ok()
                    {
                        let mut whole = vec![0; length as usize];
                        body.read_exact(&mut whole).await?;
                        whole[length as usize / 2] ^= 1;
                        server.write_all(&whole).await?;
                    } else {
                        tokio::io::copy(&mut body, &mut server).await?;
                    }
                }
                Action::Respond(response) => {
                    tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
                    let response = format!("HTTP/1.1 {response}\r\ncontent-length: 0\r\n\r\n");
                    to_client.lock().await.write_all(response.as_bytes()).await?;
                }
                Action::RespondXml(response, xml) => {
                    tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
                    let length = xml.len();
                    let response = format!(
                        "HTTP/1.1 {response}\r\ncontent-type: application/xml\r\ncontent-length: {length}\r\n\r\n{xml}"
                    );
                    to_client.lock().await.write_all(response.as_bytes()).await?;
                }
                Action::Disconnect => return Ok(()),
                Action::DropResponse => {
                    let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
                    server.write_all(head.as_bytes()).await?;
                    tokio::io::copy(&mut body, &mut server).await?;
                    // The first byte of the response: the request has been processed.
                    server.read_u8().await?;
                    return Ok(());
                }
            }
        }
    }

    fn may_be_held(&self, head: &str) -> bool {
        let mut first = self.first.lock().unwrap();
        let is_first = !first.text.is_empty() && head.contains(&first.text);
        if is_first {
            first.missing = first.missing.saturating_sub(1);
        }
        !is_first && first.missing == 0
    }

    /// Returns the number of this request, from 1.
    fn record(&self, head: &str) -> usize {
        let target = head.split(" HTTP/").next().unwrap();
        let (target, _) = target.split_once('?').unwrap_or((target, ""));
        let mut requests = self.requests.lock().unwrap();
        requests.push(target.to_owned());
        self.count.send_replace(requests.len());
        requests.len()
    }
}
