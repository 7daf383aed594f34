//! Decoding of compressed bodies.

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hookgate::ingress::{Decoding, Encoding, Undecodable};
use std::io::Write;

/// Decoded bytes at which a body is given up.
const LIMIT: usize = 1 << 20;

/// The first byte says what to do, the rest is what is done it with: any bytes are decoded or refused within bounds,
/// and what was encoded comes back as it was.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let encoding = Encoding::ALL[usize::from(choice % 4)];
    let space = [1, 7, 500, 32 << 10][usize::from(choice / 4 % 4)];
    if choice & 0x80 == 0 {
        let _ = decode(encoding, bytes, space);
        return;
    }
    let encoded = encode(encoding, bytes);
    assert_eq!(decode(encoding, &encoded, space).as_deref(), Ok(bytes));
    for end in [0, encoded.len() / 2, encoded.len() - 1] {
        assert_eq!(decode(encoding, &encoded[..end], space), Err(Undecodable), "cut off");
    }
    let with_more = [&encoded, b"x".as_slice()].concat();
    assert_eq!(decode(encoding, &with_more, space), Err(Undecodable), "more behind it");
}

fn decode(encoding: Encoding, encoded: &[u8], space: usize) -> Result<Vec<u8>, Undecodable> {
    let mut decoding = Decoding::begin(encoding, encoded)?;
    let mut decoded = Vec::new();
    let mut buffer = vec![0; space];
    let mut steps = 0;
    while !decoding.is_finished() && decoded.len() <= LIMIT {
        let written = decoding.step(&mut buffer)?;
        decoded.extend_from_slice(&buffer[..written]);
        steps += 1;
        // Each step reads or writes something, or comes to an end.
        assert!(steps <= 2 * (encoded.len() + decoded.len()) + 2, "a step that leads nowhere");
    }
    Ok(decoded)
}

fn encode(encoding: Encoding, bytes: &[u8]) -> Vec<u8> {
    let encoded = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        Encoding::Br => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).map(|()| encoder.into_inner())
        }
        Encoding::Zstd => zstd::stream::encode_all(bytes, 3),
    };
    encoded.expect("written into memory")
}
