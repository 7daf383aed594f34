//! Compressed bodies, made by real encoders and by hand to do harm.

use std::io::Write;

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

/// A body in one of the accepted encodings.
pub(crate) fn encode(encoding: &str, body: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => gzip(body),
        "deflate" => zlib(body),
        "br" => brotli(body, 22, false),
        "zstd" => zstd::stream::encode_all(body, 3).expect("into memory"),
        other => panic!("no encoder for {other}"),
    }
}

pub(crate) const ENCODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

pub(crate) fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

/// The deflate data of zlib, without its head and checksum.
pub(crate) fn raw_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

/// Brotli with a window of `window` bits: up to 24, or up to 30 with the extension.
pub(crate) fn brotli(body: &[u8], window: i32, large_window: bool) -> Vec<u8> {
    let parameters =
        BrotliEncoderParams { lgwin: window, large_window, quality: 5, ..Default::default() };
    let mut encoded = Vec::new();
    brotli::BrotliCompress(&mut &body[..], &mut encoded, &parameters).expect("into memory");
    encoded
}

/// A zstd frame that asks for a window of 2^`window_log` bytes, with one stored block.
pub(crate) fn zstd_frame(window_log: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = zstd_head(window_log);
    frame.extend(zstd_block(true, 0, body.len()));
    frame.extend(body);
    frame
}

/// A zstd frame that a decoder skips.
pub(crate) fn zstd_skippable(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short body").to_le_bytes();
    [&0x184D_2A53_u32.to_le_bytes(), &length, bytes].concat()
}

fn zstd_head(window_log: u8) -> Vec<u8> {
    [&0xFD2F_B528_u32.to_le_bytes()[..], &[0, (window_log - 10) << 3]].concat()
}

fn zstd_block(is_last: bool, kind: u32, length: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a short body");
    (u32::from(is_last) | kind << 1 | length << 3).to_le_bytes()[..3].to_vec()
}

const GIBIBYTE: usize = 1 << 30;

/// A body of less than 1 MiB that decodes to a gibibyte of zeros.
pub(crate) fn bomb(encoding: &str) -> Vec<u8> {
    // Deflate compresses zeros to a thousandth at best, and the ends of the parts count.
    let zeros = vec![0; 16 << 20];
    let repeated = |head: &[u8], part: Vec<u8>| [head, &part.repeat(GIBIBYTE >> 24)].concat();
    match encoding {
        "gzip" => repeated(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", flushed_deflate(&zeros)),
        "deflate" => repeated(b"\x78\x9c", flushed_deflate(&zeros)),
        "br" => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 24);
            let mut ends = Vec::new();
            for _ in 0..3 {
                encoder.write_all(&zeros).and_then(|()| encoder.flush()).expect("into memory");
                ends.push(encoder.get_ref().len());
            }
            let parts = encoder.get_ref();
            repeated(&parts[..ends[1]], parts[ends[1]..ends[2]].to_vec())
        }
        "zstd" => {
            // Each block repeats one byte 128 Ki times.
            let block = [&zstd_block(false, 1, 128 << 10)[..], &[0]].concat();
            [zstd_head(17), block.repeat(GIBIBYTE >> 17)].concat()
        }
        other => panic!("no bomb for {other}"),
    }
}

/// Deflate blocks that end at a byte boundary, none of which is the last block.
fn flushed_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.flush()).expect("into memory");
    encoder.get_ref().clone()
}
