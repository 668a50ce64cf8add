//! A TCP balancer: each connection goes to the next worker.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Starts a balancer in front of these addresses. It ends when the returned value is dropped.
pub async fn start(workers: Vec<SocketAddr>) -> std::io::Result<(SocketAddr, JoinSet<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        let mut next = workers.iter().cycle();
        while let Ok((mut client, _)) = listener.accept().await {
            let Some(&worker) = next.next() else { return };
            connections.spawn(async move {
                let Ok(mut server) = TcpStream::connect(worker).await else { return };
                let _ = client.set_nodelay(true).and(server.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    Ok((address, serving))
}
