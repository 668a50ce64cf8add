//! The destinations: a server that takes everything and keeps nothing. The account in a path says how it behaves.

use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Outcome;

/// Answers at once.
pub(crate) const QUICK: &str = "quick";
/// Answers nothing about instances until it is released, and then after a while.
pub(crate) const STUCK: &str = "stuck";
/// Answers 503 about instances.
pub(crate) const DOWN: &str = "down";

/// Asks for the number of requests that wait.
pub(crate) const WAITING: &str = "/waiting";
pub(crate) const RELEASE: &str = "/release";

const A_WHILE: Duration = Duration::from_secs(1);

struct Shared {
    released: watch::Sender<bool>,
    waiting: AtomicUsize,
}

/// Serves until whoever started it is gone.
pub(crate) fn serve() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(|| {
        // Ends with the parent.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
        let shared = Arc::new(Shared { released: watch::Sender::new(false), waiting: AtomicUsize::new(0) });
        loop {
            let (connection, _) = listener.accept().await?;
            let shared = Arc::clone(&shared);
            // A client that goes away is no trouble of the server's.
            tokio::spawn(async move { shared.answer(connection).await });
        }
    })
}

impl Shared {
    async fn answer(&self, connection: TcpStream) -> std::io::Result<()> {
        connection.set_nodelay(true)?;
        let mut connection = BufReader::with_capacity(1 << 17, connection);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if connection.read_line(&mut head).await? == 0 {
                    return Ok(());
                }
            }
            let length = head.lines().filter_map(|line| line.split_once(':'));
            let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.next().map_or(0, |(_, length)| length.trim().parse().unwrap_or(0));
            tokio::io::copy(&mut (&mut connection).take(length), &mut tokio::io::sink()).await?;

            let path = head.split(' ').nth(1).unwrap_or_default();
            let is_instance = path.contains("/results/");
            let account = path.split('/').nth(1).unwrap_or_default();
            let (status, body) = match account {
                DOWN if is_instance => ("503 Service Unavailable", String::new()),
                STUCK if is_instance => {
                    self.wait().await;
                    ("201 Created", String::new())
                }
                _ if path == WAITING => ("200 OK", self.waiting.load(SeqCst).to_string()),
                _ => {
                    if path == RELEASE {
                        self.released.send_replace(true);
                    }
                    ("201 Created", String::new())
                }
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            connection.write_all(answer.as_bytes()).await?;
        }
    }

    async fn wait(&self) {
        let mut released = self.released.subscribe();
        if *released.borrow() {
            return sleep(A_WHILE).await;
        }
        self.waiting.fetch_add(1, SeqCst);
        // The sender is kept.
        _ = released.wait_for(|released| *released).await;
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// Asks the server something; gives the answer's body.
pub(crate) async fn ask(address: &str, path: &str) -> Outcome<String> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await?;
    let mut connection = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        match line.trim().strip_prefix("content-length: ") {
            Some(stated) => length = stated.parse()?,
            None if line.trim().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    Ok(String::from_utf8(body)?)
}
