//! The floor: a bare HTTP client that knows all addresses before, and throws the bodies away.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{cell::Cell, rc::Rc};

use crate::world::World;

/// Fetches everything, by so many connections.
pub async fn main(address: &str, concurrency: usize, world: World) -> anyhow::Result<()> {
    let paths: Rc<[String]> = world.paths().into();
    let next = Rc::new(Cell::new(0));
    let local = tokio::task::LocalSet::new();
    let workers = (0..concurrency).map(|_| {
        let (paths, next, address) = (Rc::clone(&paths), Rc::clone(&next), address.to_owned());
        local.spawn_local(async move {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::task::spawn_local(connection);
            while let Some(path) = paths.get(next.replace(next.get() + 1)) {
                let request = Request::get(path)
                    .header(header::HOST, &address)
                    .header(header::AUTHORIZATION, "Bearer sk-admin-bench")
                    .body(Empty::<Bytes>::new())?;
                sender.ready().await?;
                let mut body = sender.send_request(request).await?.into_body();
                while let Some(frame) = body.frame().await {
                    drop(frame?);
                }
            }
            anyhow::Ok(())
        })
    });
    let workers: Vec<_> = workers.collect();
    local
        .run_until(async move {
            for worker in workers {
                worker.await??;
            }
            anyhow::Ok(())
        })
        .await
}
