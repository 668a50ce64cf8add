//! A TCP proxy that emulates a wide-area network: round-trip time, bandwidth in total and per connection, and slow start.
//!
//! Each direction of a connection has a congestion window as in TCP: it begins with ten segments, grows by what is
//! acknowledged up to [`MAX_WINDOW`], and begins again after an idle second. Bytes are acknowledged one round trip after
//! they were sent. The bandwidth applies to the direction towards the server; a connection takes its share in the order in
//! which it sends.

use std::collections::VecDeque;
use std::io::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep_until};

const SEGMENT: usize = 1460;

/// Ten segments (RFC 6928).
const INITIAL_WINDOW: usize = 10 * SEGMENT;

/// Linux's default limit of a socket's send buffer.
const MAX_WINDOW: usize = 4 << 20;

/// After this pause a connection begins with the initial window again (RFC 5681 4.1).
const IDLE_RESTART: Duration = Duration::from_secs(1);

/// The proxy's own socket buffers are small, so that they do not add to the window.
const SOCKET_BUFFER: u32 = 64 << 10;

struct Network {
    /// From one end to the other: half of the round-trip time.
    delay: Duration,
    /// Bytes per second of each connection; 0 is unlimited.
    connection_rate: f64,
    total: Option<Link>,
}

/// A link with a bandwidth, which sends one chunk after the other.
struct Link {
    bytes_per_second: f64,
    free_at: Mutex<Instant>,
}

impl Link {
    fn new(bytes_per_second: f64) -> Option<Self> {
        (bytes_per_second > 0.0).then(|| Self { bytes_per_second, free_at: Mutex::new(Instant::now()) })
    }

    /// Waits until the link has sent this number of bytes.
    async fn send(&self, bytes: usize) {
        let mut free_at = self.free_at.lock().await;
        let sent =
            (*free_at).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        *free_at = sent;
        drop(free_at);
        sleep_until(sent).await;
    }
}

/// Proxies `listen` to `upstream` until the process is killed. The settings are `delay=` (round-trip time in ms), `rate=` and
/// `connection-rate=` (Mbit/s, 0: unlimited).
pub async fn run(listen: &str, upstream: &str, settings: &[&str]) -> Result<()> {
    let (mut delay, mut rate, mut connection_rate) = (0.0, 0.0, 0.0);
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let value: f64 = value.parse().map_err(|_| Error::other(format!("{name} must be a number")))?;
        match name {
            "delay" => delay = value,
            "rate" => rate = value,
            "connection-rate" => connection_rate = value,
            _ => return Err(Error::other(format!("unknown setting {name}"))),
        }
    }
    let bytes_per_second = |megabits: f64| megabits * 1e6 / 8.0;
    let network = Arc::new(Network {
        delay: Duration::from_secs_f64(delay / 2e3),
        connection_rate: bytes_per_second(connection_rate),
        total: Link::new(bytes_per_second(rate)),
    });
    let listener = listen_on(listen)?;
    println!("{}", listener.local_addr()?);
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (network, upstream) = (Arc::clone(&network), upstream.to_owned());
        tokio::spawn(async move { pass(network, client, &upstream).await });
    }
}

fn listen_on(address: &str) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.bind(address.parse().map_err(Error::other)?)?;
    socket.listen(1024)
}

async fn pass(network: Arc<Network>, client: TcpStream, upstream: &str) -> Result<()> {
    client.set_nodelay(true)?;
    // The handshake of TCP takes one round trip.
    sleep_until(Instant::now() + 2 * network.delay).await;
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let upload = direction(&network, true, from_client, to_server);
    let download = direction(&network, false, from_server, to_client);
    tokio::try_join!(upload, download)?;
    Ok(())
}

/// Passes one direction of a connection.
async fn direction(
    network: &Network,
    is_upload: bool,
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
) -> Result<()> {
    let own = Link::new(network.connection_rate).filter(|_| is_upload);
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let send = async move {
        let mut window = INITIAL_WINDOW;
        // When what was sent is acknowledged, and how many bytes.
        let mut unacknowledged: VecDeque<(Instant, usize)> = VecDeque::new();
        let (mut in_flight, mut last_sent) = (0, Instant::now());
        let mut buffer = vec![0; 32 << 10];
        loop {
            while let Some(&(at, bytes)) = unacknowledged.front() {
                if at > Instant::now() {
                    if in_flight < window {
                        break;
                    }
                    sleep_until(at).await;
                }
                unacknowledged.pop_front();
                in_flight -= bytes;
                window = (window + bytes).min(MAX_WINDOW);
            }
            let room = (window - in_flight).min(buffer.len());
            let length = from.read(&mut buffer[..room]).await?;
            if length == 0 {
                return Ok::<_, Error>(());
            }
            if in_flight == 0 && last_sent.elapsed() > IDLE_RESTART {
                window = INITIAL_WINDOW;
            }
            if let Some(link) = &own {
                link.send(length).await;
            }
            if let Some(link) = network.total.as_ref().filter(|_| is_upload) {
                link.send(length).await;
            }
            last_sent = Instant::now();
            in_flight += length;
            unacknowledged.push_back((last_sent + 2 * network.delay, length));
            if sender.send((last_sent + network.delay, buffer[..length].to_vec())).is_err() {
                return Ok(());
            }
        }
    };
    let deliver = async move {
        while let Some((at, bytes)) = receiver.recv().await {
            sleep_until(at).await;
            to.write_all(&bytes).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(send, deliver)?;
    Ok(())
}
