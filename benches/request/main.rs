//! The cost of the steps of a request that run in memory: authenticate, choose the queue, parse,
//! match, encode.
//!
//! ```text
//! cargo bench --bench request                    some minutes
//! cargo bench --bench request -- authenticate    one step
//! ```
#![expect(unreachable_pub, reason = "pub marks items for other files of this benchmark")]
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a failed benchmark panics")]

mod authenticate;
mod encode;
#[path = "../instructions/body.rs"]
mod body;
mod matching;
mod parse;
mod shard;
#[path = "../index/triggers.rs"]
#[expect(dead_code, reason = "another benchmark uses it too")]
mod triggers;

use criterion::{criterion_group, criterion_main};
use hookgate::settings::SettingsReader;
use mimalloc::MiMalloc;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Bytes of a body.
const SIZES: [usize; 4] = [150, 4 << 10, 64 << 10, 1 << 20];

criterion_group!(
    steps,
    authenticate::measure,
    shard::measure,
    parse::measure,
    matching::measure,
    encode::measure
);
criterion_main!(steps);

fn settings(toml: &str) -> SettingsReader {
    SettingsReader::new(toml.parse().unwrap(), std::iter::empty())
}
