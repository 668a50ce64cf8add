//! The destinations: a server that accepts and discards everything. The account in the path selects its behavior.

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

/// Responds immediately.
pub(crate) const FAST: &str = "fast";
/// Does not respond to requests for instances until it is released, and then slowly.
pub(crate) const BLOCKED: &str = "blocked";
/// Responds with 503 to requests for instances.
pub(crate) const DOWN: &str = "down";

/// Returns the number of blocked requests.
pub(crate) const WAITING: &str = "/waiting";
/// Releases the blocked requests.
pub(crate) const RELEASE: &str = "/release";

const SLOW_RESPONSE: Duration = Duration::from_secs(1);

struct Shared {
    released: watch::Sender<bool>,
    waiting: AtomicUsize,
}

/// Serves until the parent process ends.
pub(crate) fn serve() -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(|| {
        // Standard input ends with the parent process.
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
            // Errors are ignored: clients close connections.
            tokio::spawn(async move { shared.serve(connection).await });
        }
    })
}

impl Shared {
    async fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
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
                BLOCKED if is_instance => {
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
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            connection.write_all(response.as_bytes()).await?;
        }
    }

    async fn wait(&self) {
        let mut released = self.released.subscribe();
        if *released.borrow() {
            return sleep(SLOW_RESPONSE).await;
        }
        self.waiting.fetch_add(1, SeqCst);
        // The sender lives as long as `self`.
        _ = released.wait_for(|released| *released).await;
        self.waiting.fetch_sub(1, SeqCst);
    }
}

/// Sends a GET request and returns the body of the response.
pub(crate) async fn get(address: &str, path: &str) -> Outcome<String> {
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
