//! Costs that callers cause for others: memory of an idle connection, next to a bare hyper server,
//! and the effect of thousands of slow callers and of an organization far over its limit on the
//! latency of honest requests.
//!
//! ```text
//! cargo bench --bench edge                          about five minutes, and the build before it
//! cargo bench --bench edge -- --connections 2000    as many as the limit of open files allows
//! ```
//!
//! It needs `redis-server`. Callers and servers share the machine, so latencies are only meaningful
//! as a ratio of two in one run.
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::print_stdout, reason = "the benchmark prints a table")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed benchmark panics")]

mod bare;
mod idle;
mod latency;
mod neighbour;

/// The allocator of Hookgate, so that both servers are measured with the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 10_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments[at + 1].parse().expect("a number"))
    };
    if let Some(port) = value(bare::ARGUMENT) {
        return bare::serve(u16::try_from(port).expect("a port"));
    }
    let connections = value("--connections").unwrap_or(CONNECTIONS);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        testkit::slow::allow_open_files();
        idle::measure(connections).await;
        latency::measure(connections).await;
        neighbour::measure().await;
    });
}
