//! A door before a server: it counts and names the requests that go through, holds them up, damages them, lets some go
//! wrong or shuts when told.

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

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passes,
    /// It is answered so, with a status line and headers, and does not reach the server.
    Answered(&'static str),
    /// The connection is cut before the server sees it.
    Cut,
    /// The server does its work, and the connection is cut before its answer.
    AnswerLost,
}

/// Decides by a request's number, from 1, and its head.
type Fates = dyn Fn(usize, &str) -> Fate + Send + Sync;

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
    fates: Mutex<Arc<Fates>>,
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
            fates: Mutex::new(Arc::new(|_, _| Fate::Passes)),
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

    /// What becomes of requests from now on.
    pub(crate) fn decide(&self, fates: impl Fn(usize, &str) -> Fate + Send + Sync + 'static) {
        *self.shared.fates.lock().unwrap() = Arc::new(fates);
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
        let (from_client, to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let to_client = tokio::sync::Mutex::new(to_client);
        let answers = async {
            let mut answer = vec![0; 1 << 16];
            loop {
                match from_server.read(&mut answer).await? {
                    0 => return Ok(()),
                    length => to_client.lock().await.write_all(&answer[..length]).await?,
                }
            }
        };
        tokio::select! {
            ended = answers => ended,
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
            let number = self.note(&head);
            let mut door = self.door.subscribe();
            let held = head.contains("/results/");
            let passes = |door: &Door| !held || !matches!(door, Door::HoldAfter(last) if number > *last);
            let _ = door.wait_for(passes).await;
            let length = head.lines().filter_map(|line| line.split_once(": "));
            let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.next().map_or(0, |(_, length)| length.parse().unwrap());
            let fates = Arc::clone(&self.fates.lock().unwrap());
            let mut body = (&mut client).take(length);
            match fates(number, &head) {
                Fate::Passes => {
                    server.write_all(head.as_bytes()).await?;
                    let damaged = |left: usize| left.checked_sub(1);
                    if held && length > 0 && self.damage.fetch_update(SeqCst, SeqCst, damaged).is_ok() {
                        let mut whole = vec![0; length as usize];
                        body.read_exact(&mut whole).await?;
                        whole[length as usize / 2] ^= 1;
                        server.write_all(&whole).await?;
                    } else {
                        tokio::io::copy(&mut body, &mut server).await?;
                    }
                }
                Fate::Answered(answer) => {
                    tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
                    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                    to_client.lock().await.write_all(answer.as_bytes()).await?;
                }
                Fate::Cut => return Ok(()),
                Fate::AnswerLost => {
                    let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
                    server.write_all(head.as_bytes()).await?;
                    tokio::io::copy(&mut body, &mut server).await?;
                    // It answers when it is done.
                    server.read_u8().await?;
                    return Ok(());
                }
            }
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
