//! A body without its `Content-Encoding`: decoded in small steps, and never beyond a bound.
//!
//! The encoded body is there in full before decoding begins, so that a slow caller never keeps a
//! decoder waiting, which may hold far more memory than the body.

use super::encoding::Encoding;
use super::rejection::Rejection;
use crate::admission::Permit;
use bytes::Bytes;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use std::fmt;

/// Bytes that a step reads or writes at the most. Other requests of the worker come in between.
const STEP: usize = 32 << 10;

/// The largest window that a frame of zstd may ask for, 8 MiB, as a power of two. RFC 9659 allows
/// no more in HTTP.
const ZSTD_WINDOW: u32 = 23;

/// Members of gzip and frames of zstd that a body may have. Programs that compress in parallel or append write several;
/// a MiB of empty ones takes a decoder hundreds of milliseconds, for nothing.
const MOST_MEMBERS: usize = 64;

/// The body is not what its `Content-Encoding` says, or it is cut off, or more follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be decoded")]
pub struct Undecodable;

/// Decodes a whole body. What it comes to is held by the permit in place of what was held.
pub(super) async fn decode(
    encoding: Encoding,
    encoded: &[u8],
    max_bytes: usize,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    let mut decoding = Decoding::begin(encoding, encoded)?;
    let mut decoded = Vec::new();
    let mut filled = 0;
    loop {
        if filled == decoded.len() {
            // Room for one byte beyond the bound, which shows that there is one.
            let grown = (4 * encoded.len()).min(STEP).max(2 * filled).min(max_bytes + 1);
            permit.hold(grown - filled)?;
            decoded.resize(grown, 0);
        }
        let end = decoded.len().min(filled + STEP);
        filled += decoding.step(decoded.get_mut(filled..end).unwrap_or_default())?;
        if filled > max_bytes {
            return Err(Rejection::PayloadTooLarge { max_bytes });
        }
        if decoding.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    decoded.truncate(filled);
    decoded.shrink_to_fit();
    permit.hold_instead(filled)?;
    Ok(Bytes::from(decoded))
}

/// A body that is being decoded.
pub struct Decoding<'a> {
    decoder: Box<dyn DecodeV2 + Send>,
    /// How many more members may follow; the formats that have none end once.
    members_left: usize,
    is_complete: bool,
    rest: &'a [u8],
}

impl<'a> Decoding<'a> {
    pub fn begin(encoding: Encoding, encoded: &'a [u8]) -> Result<Self, Undecodable> {
        let decoder: Box<dyn DecodeV2 + Send> = match encoding {
            Encoding::Gzip => Box::new(GzipDecoder::new()),
            Encoding::Deflate if is_zlib(encoded) => Box::new(ZlibDecoder::new()),
            Encoding::Deflate => Box::new(DeflateDecoder::new()),
            Encoding::Br if is_large_window(encoded) => return Err(Undecodable),
            Encoding::Br => Box::new(BrotliDecoder::new()),
            Encoding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW);
                Box::new(ZstdDecoder::new_with_params(&[window]))
            }
        };
        let members_left = match encoding {
            Encoding::Gzip | Encoding::Zstd => MOST_MEMBERS - 1,
            Encoding::Deflate | Encoding::Br => 0,
        };
        Ok(Self { decoder, members_left, is_complete: false, rest: encoded })
    }

    /// Whether all of the body has been decoded.
    pub fn is_finished(&self) -> bool {
        self.is_complete && self.rest.is_empty()
    }

    /// Decodes on into `space`, and gives the number of bytes that it has put there.
    pub fn step(&mut self, space: &mut [u8]) -> Result<usize, Undecodable> {
        if self.is_complete {
            self.members_left = self.members_left.checked_sub(1).ok_or(Undecodable)?;
            self.decoder.reinit().map_err(|_| Undecodable)?;
        }
        let mut input = PartialBuffer::new(self.rest.get(..STEP).unwrap_or(self.rest));
        let mut output = WriteBuffer::new_initialized(space);
        let is_complete = self.decoder.decode(&mut input, &mut output);
        self.is_complete = is_complete.map_err(|_| Undecodable)?;
        let (read, written) = (input.written_len(), output.written_len());
        // It wants more, and there is no more.
        if !self.is_complete && read == 0 && written == 0 {
            return Err(Undecodable);
        }
        self.rest = self.rest.get(read..).unwrap_or_default();
        Ok(written)
    }
}

impl fmt::Debug for Decoding<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Decoding").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

/// `deflate` means the zlib format, but some send what is inside of it without (RFC 9110 8.4.1.2).
/// No encoder begins that as zlib begins (RFC 1950 2.2).
fn is_zlib(encoded: &[u8]) -> bool {
    match encoded {
        [method, flags, ..] => {
            method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => false,
    }
}

/// An extension of brotli beyond RFC 7932, with windows of up to 1 GiB, which the decoder knows.
fn is_large_window(encoded: &[u8]) -> bool {
    encoded.first().is_some_and(|first| first & 0x7f == 0x11)
}
