//! Decodes a body by its `Content-Encoding`, in small steps and up to a bound.
//!
//! Decoding begins when the encoded body has arrived in full, so that a slow caller cannot keep a
//! decoder waiting. A decoder may use far more memory than the body.

use crate::admission::Permit;
use crate::ingress::content_encoding::ContentEncoding;
use crate::ingress::rejection::Rejection;
use bytes::Bytes;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::zstd::params::DParameter;
use compression_codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
};
use std::fmt;

/// Maximum bytes that a step reads or writes. Other requests of the worker run between steps.
const STEP_BYTES: usize = 32 << 10;

/// Base-2 logarithm of the largest window that a zstd frame may request: 8 MiB, the maximum in HTTP
/// by RFC 9659.
const ZSTD_WINDOW: u32 = 23;

/// gzip members or zstd frames that a body may have. Programs that compress in parallel or append
/// write several. Without a bound, 1 MiB of empty ones would cost hundreds of milliseconds.
const MAX_MEMBERS: usize = 64;

/// The body is not valid in its `Content-Encoding`, is truncated, or has trailing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body cannot be decoded")]
pub struct Undecodable;

/// Decodes a whole body. The permit is resized to the decoded bytes.
pub(super) async fn decode(
    encoding: ContentEncoding,
    encoded: &[u8],
    max_bytes: usize,
    permit: &mut Permit,
) -> Result<Bytes, Rejection> {
    let mut decoding = Decoding::begin(encoding, encoded)?;
    let mut decoded = Vec::new();
    let mut filled = 0;
    loop {
        if filled == decoded.len() {
            // Leave space for one byte beyond the bound, to detect a body that exceeds it.
            let grown = (4 * encoded.len()).min(STEP_BYTES).max(2 * filled).min(max_bytes + 1);
            permit.reserve(grown - filled)?;
            decoded.resize(grown, 0);
        }
        let end = decoded.len().min(filled + STEP_BYTES);
        filled += decoding.step(decoded.get_mut(filled..end).unwrap_or_default())?;
        if filled > max_bytes {
            return Err(Rejection::BodyTooLarge { max_bytes });
        }
        if decoding.is_finished() {
            break;
        }
        tokio::task::yield_now().await;
    }
    decoded.truncate(filled);
    decoded.shrink_to_fit();
    permit.resize(filled)?;
    Ok(Bytes::from(decoded))
}

/// A body that is being decoded.
pub struct Decoding<'a> {
    decoder: Box<dyn DecodeV2 + Send>,
    /// How many more members may follow; 0 for the formats without members.
    members_left: usize,
    is_complete: bool,
    /// The encoded bytes that are not decoded yet.
    rest: &'a [u8],
}

impl<'a> Decoding<'a> {
    pub fn begin(encoding: ContentEncoding, encoded: &'a [u8]) -> Result<Self, Undecodable> {
        let decoder: Box<dyn DecodeV2 + Send> = match encoding {
            ContentEncoding::Gzip => Box::new(GzipDecoder::new()),
            ContentEncoding::Deflate if is_zlib(encoded) => Box::new(ZlibDecoder::new()),
            ContentEncoding::Deflate => Box::new(DeflateDecoder::new()),
            ContentEncoding::Br if is_large_window(encoded) => return Err(Undecodable),
            ContentEncoding::Br => Box::new(BrotliDecoder::new()),
            ContentEncoding::Zstd => {
                let window = DParameter::window_log_max(ZSTD_WINDOW);
                Box::new(ZstdDecoder::new_with_params(&[window]))
            }
        };
        let members_left = match encoding {
            ContentEncoding::Gzip | ContentEncoding::Zstd => MAX_MEMBERS - 1,
            ContentEncoding::Deflate | ContentEncoding::Br => 0,
        };
        Ok(Self { decoder, members_left, is_complete: false, rest: encoded })
    }

    /// Whether all of the body has been decoded.
    pub fn is_finished(&self) -> bool {
        self.is_complete && self.rest.is_empty()
    }

    /// Decodes the next bytes into `space`, and returns how many it has written.
    pub fn step(&mut self, space: &mut [u8]) -> Result<usize, Undecodable> {
        if self.is_complete {
            self.members_left = self.members_left.checked_sub(1).ok_or(Undecodable)?;
            self.decoder.reinit().map_err(|_| Undecodable)?;
        }
        let mut input = PartialBuffer::new(self.rest.get(..STEP_BYTES).unwrap_or(self.rest));
        let mut output = WriteBuffer::new_initialized(space);
        let is_complete = self.decoder.decode(&mut input, &mut output);
        self.is_complete = is_complete.map_err(|_| Undecodable)?;
        let (read, written) = (input.written_len(), output.written_len());
        // The decoder needs more input, and there is none.
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

/// `deflate` means the zlib format, but some callers send raw deflate data (RFC 9110 8.4.1.2). No
/// encoder begins raw data with the bytes of a zlib header (RFC 1950 2.2).
fn is_zlib(encoded: &[u8]) -> bool {
    match encoded {
        [method, flags, ..] => {
            method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
        }
        _ => false,
    }
}

/// Large-window brotli, an extension of RFC 7932 with windows of up to 1 GiB. The decoder supports
/// it, so it is rejected here.
fn is_large_window(encoded: &[u8]) -> bool {
    encoded.first().is_some_and(|first| first & 0x7f == 0x11)
}

impl From<Undecodable> for Rejection {
    fn from(_: Undecodable) -> Self {
        Self::Undecodable
    }
}
