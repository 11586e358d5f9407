//! Simulated servers on loopback: an Admin API, a mail server and a webhook receiver. `certvigil
//! demo` runs the service against them, and the tests use them, too. The service itself is
//! unchanged: it connects over real sockets.

pub mod admin_api;
pub mod audit_log;
pub mod mailbox;
pub mod pages;
pub mod receiver;
pub mod world;

use axum::Router;
use std::{io, net::SocketAddr};

/// Serves a router on a free port of 127.0.0.1 for as long as the runtime lives.
///
/// # Errors
/// If no port is available.
pub async fn serve(router: Router) -> io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a simulated server of the demo stopped");
        }
    });
    Ok(address)
}
