//! Decoding of compressed bodies.

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hookgate::ingress::{ContentEncoding, Decoding, Undecodable};
use std::io::Write;

/// The limit of decoded bytes.
const LIMIT: usize = 1 << 20;

/// The first byte selects the operation and the rest is its input. Any bytes are decoded or refused
/// within bounds, and encoded bytes decode to the original.
pub fn check(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let encoding = ContentEncoding::ALL[usize::from(choice % 4)];
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
    assert_eq!(decode(encoding, &with_more, space), Err(Undecodable), "trailing bytes");
}

fn decode(encoding: ContentEncoding, encoded: &[u8], space: usize) -> Result<Vec<u8>, Undecodable> {
    let mut decoding = Decoding::begin(encoding, encoded)?;
    let mut decoded = Vec::new();
    let mut buffer = vec![0; space];
    let mut steps = 0;
    while !decoding.is_finished() && decoded.len() <= LIMIT {
        let written = decoding.step(&mut buffer)?;
        decoded.extend_from_slice(&buffer[..written]);
        steps += 1;
        // Each step reads or writes something or is the last.
        assert!(steps <= 2 * (encoded.len() + decoded.len()) + 2, "a step makes progress");
    }
    Ok(decoded)
}

fn encode(encoding: ContentEncoding, bytes: &[u8]) -> Vec<u8> {
    let encoded = match encoding {
        ContentEncoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        ContentEncoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        ContentEncoding::Br => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).map(|()| encoder.into_inner())
        }
        ContentEncoding::Zstd => zstd::stream::encode_all(bytes, 3),
    };
    encoded.expect("written into memory")
}
