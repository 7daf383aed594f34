//! Answers to handshakes.

/// The answer to a handshake. It is sent with `X-Content-Type-Options: nosniff`, and starts no job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeAnswer {
    /// Status 200, `text/plain`.
    Text(String),
    /// Status 200, `application/json`.
    Json(String),
    /// Status 204.
    Empty,
}

/// A signed handshake that cannot be answered: what it asks to be sent back is missing, or is not
/// what its provider sends. It starts no job either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnfitHandshake;
