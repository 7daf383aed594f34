//! Everything that arrives over HTTP: connections, heads, bodies, and refusals.

mod bodies;
mod client_address;
pub(crate) mod compressed;
mod connections;
mod disconnects;
mod floods;
mod http2;
mod http2_floods;
mod json_suite;
mod limits;
mod malformed;
mod preview;
mod reject;
mod slow_callers;
mod tls;
mod verbatim;
