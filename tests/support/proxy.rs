//! A door before a server: it counts and names the requests that go through, and holds them up, damages them or shuts when told.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Requests for instances wait after so many requests.
    HoldAfter(usize),
    /// Every connection is cut, and so is each that comes.
    Shut,
}

/// Ends with this value.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: u16,
    /// `<method> <path>` of each request whose head has come.
    requests: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
    door: watch::Sender<Door>,
    /// So many bodies for instances are still to be damaged.
    damage: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream,
            requests: Mutex::default(),
            count: watch::Sender::new(0),
            door: watch::Sender::new(Door::Open),
            damage: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        let serving = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move {
                    let mut door = shared.door.subscribe();
                    tokio::select! {
                        // Whoever goes away does so in the middle of something: that is what the tests are for.
                        _ = shared.pass(client) => {}
                        _ = door.wait_for(|door| *door == Door::Shut) => {}
                    }
                });
            }
        });
        Self { port, shared, _tasks: tasks }
    }

    /// The same URL through the door.
    pub(crate) fn through(&self, url: &str) -> String {
        let mut url = reqwest::Url::parse(url).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }

    pub(crate) fn set(&self, door: Door) {
        self.shared.door.send_replace(door);
    }

    /// Of the next so many requests for instances one bit arrives wrong.
    pub(crate) fn damage(&self, requests: usize) {
        self.shared.damage.store(requests, SeqCst);
    }

    /// How many are still to be damaged.
    pub(crate) fn undamaged(&self) -> usize {
        self.shared.damage.load(SeqCst)
    }

    /// Every request so far, as `<method> <path>`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have come since the first.
    pub(crate) async fn seen(&self, count: usize) {
        let mut seen = self.shared.count.subscribe();
        seen.wait_for(|seen| *seen >= count).await.unwrap();
    }
}

impl Shared {
    async fn pass(&self, client: TcpStream) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        server.set_nodelay(true)?;
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let answers = async { tokio::io::copy(&mut from_server, &mut to_client).await.map(drop) };
        tokio::select! {
            ended = answers => ended,
            ended = self.requests(BufReader::new(from_client), to_server) => ended,
        }
    }

    async fn requests(
        &self,
        mut client: impl AsyncBufReadExt + Unpin,
        mut server: impl AsyncWriteExt + Unpin,
    ) -> std::io::Result<()> {
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if client.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let number = self.note(&head);
            let mut door = self.door.subscribe();
            let held = head.contains("/results/");
            let passes = |door: &Door| !held || !matches!(door, Door::HoldAfter(last) if number > *last);
            let _ = door.wait_for(passes).await;
            let length = head.lines().filter_map(|line| line.split_once(": "));
            let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.next().map_or(0, |(_, length)| length.parse().unwrap());
            server.write_all(head.as_bytes()).await?;
            let damaged = |left: usize| left.checked_sub(1);
            if held && length > 0 && self.damage.fetch_update(SeqCst, SeqCst, damaged).is_ok() {
                let mut body = vec![0; length as usize];
                client.read_exact(&mut body).await?;
                body[length as usize / 2] ^= 1;
                server.write_all(&body).await?;
                continue;
            }
            tokio::io::copy(&mut (&mut client).take(length), &mut server).await?;
        }
    }

    /// The number of this request, from 1.
    fn note(&self, head: &str) -> usize {
        let target = head.split(" HTTP/").next().unwrap();
        let (target, _) = target.split_once('?').unwrap_or((target, ""));
        let mut requests = self.requests.lock().unwrap();
        requests.push(target.to_owned());
        self.count.send_replace(requests.len());
        requests.len()
    }
}
