//! Bodies that are as expensive to process as possible.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// An object for a webhook without workflows, with a member that repeats `filling`. `open` is how
/// the member begins; if it is empty, the member is a string.
pub(super) fn filled(open: &str, filling: &str, bytes: usize) -> Vec<u8> {
    let (open, last, close) = match open {
        "[" => ("[", "0", "]}"),
        "{" => ("{", "\"\":0", "}}"),
        _ => ("\"", "", "\"}"),
    };
    let head = format!("{{\"webhookId\":\"nobody\",\"a\":{open}");
    let room = bytes - head.len() - last.len() - close.len();
    let text = [&head, &*filling.repeat(room / filling.len()), last, close].concat();
    text.into_bytes()
}

/// Arrays of the greatest accepted depth, one after the other.
pub(super) fn deep(bytes: usize) -> Vec<u8> {
    const DEPTH: usize = 126;
    filled("[", &format!("{}{},", "[".repeat(DEPTH), "]".repeat(DEPTH)), bytes)
}

pub(super) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("into memory");
    encoder.finish().expect("into memory")
}

/// Deflate blocks that hold only the description of their codes, 91 bits each: two symbols for
/// lengths (18 and 1), one bit for the literal 0, 255 symbols without a code, one bit for the end,
/// one for a distance.
pub(super) fn tables(bytes: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    for _ in 0..bytes * 8 / 91 {
        bits.push(0b100, 3);
        bits.push(0, 5);
        bits.push(0, 5);
        bits.push(14, 4);
        for place in 0..18 {
            // The third position is symbol 18, the last one is symbol 1.
            bits.push(u32::from(place == 2 || place == 17), 3);
        }
        // In the order of symbols, 1 has the code 0, and 18 has the code 1.
        bits.push(0, 1);
        for zeros in [138, 117] {
            bits.push(1, 1);
            bits.push(zeros - 11, 7);
        }
        bits.push(0, 1);
        bits.push(0, 1);
        // The end of the block is the second of two symbols.
        bits.push(1, 1);
    }
    bits.bytes
}

/// Bits in the order of deflate: the lowest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, value: u32, count: usize) {
        for bit in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.last_mut().expect("it was just created");
            *last |= u8::from(value >> bit & 1 == 1) << (self.used % 8);
            self.used += 1;
        }
    }
}

/// Brotli words with a description of their own codes every few bytes.
pub(super) fn brotli_blocks(bytes: usize) -> Vec<u8> {
    let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 16);
    let mut random = fastrand::Rng::with_seed(1);
    while encoder.get_ref().len() < bytes - 4096 {
        let few: Vec<u8> = (0..64).map(|_| random.alphanumeric() as u8).collect();
        encoder.write_all(&few).and_then(|()| encoder.flush()).expect("into memory");
    }
    encoder.into_inner()
}

pub(super) fn zstd_frames(bytes: usize) -> Vec<u8> {
    let empty = zstd::stream::encode_all(&b""[..], 1).expect("into memory");
    empty.repeat(bytes / empty.len())
}

/// One zstd frame of empty blocks.
pub(super) fn zstd_blocks(bytes: usize) -> Vec<u8> {
    let head = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0, 7 << 3]].concat();
    [head, vec![0; (bytes - 16) / 3 * 3]].concat()
}
