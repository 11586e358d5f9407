//! `certvigil health`: requests the health of the service on this host, for containers without a
//! shell.

use anyhow::{Context, bail};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use super::Failure;
use crate::{config::listens, domain::text::one_line, net};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also check readiness (/readyz): database available, scans and deliveries on schedule
    #[arg(long)]
    ready: bool,
}

/// The time limit: longer than the limit of the service for its database.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a displayed response, in bytes.
const SHOWN: usize = 2_000;

pub async fn main(file: Option<&Path>, arguments: &Arguments) -> Result<(), Failure> {
    let Some(address) = listens(file)? else {
        return Err(anyhow::anyhow!("http.listen is \"off\": there is no health endpoint").into());
    };
    let path = if arguments.ready { "readyz" } else { "healthz" };
    let reply = answer(reachable(address), path).await?;
    super::print(&format!("{reply}\n"))
}

/// The body of a successful response.
async fn answer(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let client = reqwest::Client::builder()
        .user_agent(net::USER_AGENT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIMEOUT)
        .build()?;
    let asked = client.get(format!("http://{address}/{path}")).send().await;
    let answer = asked.with_context(|| format!("{address} does not answer"))?;
    let status = answer.status();
    let reply = one_line(&net::text_up_to(answer, SHOWN).await, SHOWN);
    if !status.is_success() {
        bail!("{status}: {reply}");
    }
    Ok(reply)
}

/// Replaces a wildcard address with loopback, where it is reachable.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
