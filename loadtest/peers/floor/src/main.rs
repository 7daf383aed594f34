//! The floors: bare hyper in Hookgate's runtime layout. Each reads the body and answers a constant 202 of the length
//! that Hookgate's answer has. `floor` does nothing else: whatever a service does beyond HTTP comes on top of it.
//! `floor redis` also adds the job, by the bare commands: the least that any service can do which stores the job in Redis
//! before it answers.

mod job;
mod redis;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use redis::Redis;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWER: &str = r#"{"success":true,"message":"Webhook accepted","data":{"webhookId":"wh_000000","matchedCount":1}}"#;

fn main() -> anyhow::Result<()> {
    let set = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let address = SocketAddr::from(([127, 0, 0, 1], set("PORT")?.parse()?));
    let redis = match std::env::args().nth(1).as_deref() {
        None => None,
        Some("redis") => Some(redis::address(&set("REDIS_URL")?)?),
        Some(other) => anyhow::bail!("there is no mode {other}"),
    };
    for _ in 0..thread::available_parallelism()?.get() {
        thread::spawn(move || {
            let Err(error) = work(address, redis);
            stop(&error)
        });
    }
    // A program that returns from `main` leaves the counts of a profile.
    runtime()?
        .block_on(async { signal(SignalKind::terminate())?.recv().await.context("no signals") })
}

fn stop(error: &anyhow::Error) -> ! {
    eprintln!("floor: {error:#}");
    std::process::exit(1)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A runtime, a listener of its own on the port that all share, and a connection to Redis.
fn work(
    address: SocketAddr,
    redis: Option<SocketAddr>,
) -> anyhow::Result<std::convert::Infallible> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    runtime()?.block_on(async {
        let listener = TcpListener::from_std(socket.into())?;
        let redis = match redis {
            Some(address) => Some(Redis::connect(address).await?),
            None => None,
        };
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let redis = redis.clone();
            let service = service_fn(move |request| answer(request, redis.clone()));
            // It ends with an error when the other side closes in the middle, which is its own affair.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    redis: Option<Arc<Redis>>,
) -> hyper::Result<Response<Full<Bytes>>> {
    let body = request.into_body().collect().await?;
    let is_added = match redis {
        Some(redis) => redis.add(body.aggregate()).await,
        None => true,
    };
    let status = if is_added { StatusCode::ACCEPTED } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
