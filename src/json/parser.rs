//! Checks JSON: its grammar, UTF-8 and depth.

use crate::json::depth::is_too_deep;
use crate::json::invalid_json::{InvalidJson, MAX_DEPTH};
use serde::de::IgnoredAny;
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Node, Tape};
use std::cell::RefCell;

/// Bytes of the largest text whose buffers are kept for the next one. Larger ones are freed, because
/// the buffers may grow to some twenty times the size of the text.
const KEPT_BYTES: usize = 64 << 10;

/// Valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a, T> {
    /// What was read on the tape.
    OnTape(T),
    /// The text, which has no tape: it has numbers or code points that simd-json cannot convert.
    ByGrammar(&'a str),
}

/// Checks a text that is complete, and reads its tape. Strings on the tape point into a copy of the
/// text, whose address is passed beside the tape.
pub fn parse<T>(
    json: &[u8],
    read: impl FnOnce(&[Node<'_>], usize) -> T,
) -> Result<Parsed<'_, T>, InvalidJson> {
    match PARSER.with_borrow_mut(|parser| parser.parse(json, read)) {
        Ok(read) => Ok(Parsed::OnTape(read)),
        Err(ParserRefusal::Depth) => Err(InvalidJson::locate(json)),
        // simd-json converts numbers and code points, so it rejects some that JSON allows (1e400,
        // integers from 2^64, lone surrogates). What it rejects is parsed again by grammar alone.
        Err(ParserRefusal::Grammar) => check_grammar(json).map(Parsed::ByGrammar),
    }
}

/// Checks a text that is complete.
pub fn validate(json: &[u8]) -> Result<(), InvalidJson> {
    parse(json, |_, _| ()).map(|_| ())
}

thread_local! {
    static PARSER: RefCell<Parser> = RefCell::new(Parser::default());
}

/// The parser of a thread. Its buffers are reused for the next text.
struct Parser {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        let buffers = Buffers::with_max_depth(0, MAX_DEPTH);
        Self { scratch: Vec::new(), buffers, tape: Tape(Vec::new()) }
    }
}

enum ParserRefusal {
    Depth,
    Grammar,
}

impl Parser {
    fn parse<T>(
        &mut self,
        json: &[u8],
        read: impl FnOnce(&[Node<'_>], usize) -> T,
    ) -> Result<T, ParserRefusal> {
        let result = self.parse_in_buffers(json, read);
        if json.len() > KEPT_BYTES {
            *self = Self::default();
        }
        result
    }

    fn parse_in_buffers<T>(
        &mut self,
        json: &[u8],
        read: impl FnOnce(&[Node<'_>], usize) -> T,
    ) -> Result<T, ParserRefusal> {
        // simd-json parses in place, so it gets a copy of the text. Strings on the tape point into
        // that copy, which gives their offsets in the text.
        self.scratch.clear();
        self.scratch.extend_from_slice(json);
        self.scratch.resize(json.len() + INPUT_PADDING, 0);
        let base = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.scratch,
            json.len(),
            &mut self.buffers,
            &mut tape,
        );
        let result = match parsed {
            Ok(()) => Ok(read(&tape.0, base)),
            Err(error) if *error.error() == ErrorType::DepthLimitExceeded => {
                Err(ParserRefusal::Depth)
            }
            Err(_) => Err(ParserRefusal::Grammar),
        };
        self.tape = tape.reset();
        result
    }
}

/// The slow path. `serde_json` checks the grammar only; UTF-8 and depth are checked separately.
fn check_grammar(json: &[u8]) -> Result<&str, InvalidJson> {
    let invalid = || InvalidJson::locate(json);
    let text = std::str::from_utf8(json).map_err(|_| invalid())?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| invalid())?;
    if is_too_deep(json) {
        return Err(invalid());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::InvalidJsonKind;

    #[test]
    fn json_of_every_kind_is_valid() {
        for json in ["null", " 1 ", "\"\"", "[]", "{\"a\":1,\"a\":2}", "1e400", "\"\\ud800\""] {
            assert_eq!(validate(json.as_bytes()), Ok(()), "{json}");
        }
    }

    #[test]
    fn both_ways_refuse_the_same() {
        let deep = |inside: &str| format!("{}{inside}{}", "[".repeat(129), "]".repeat(129));
        for (json, kind, offset) in [
            (b"".to_vec(), InvalidJsonKind::Syntax, 0),
            (b"tru".to_vec(), InvalidJsonKind::Syntax, 3),
            (b"[1e400,]".to_vec(), InvalidJsonKind::Syntax, 7),
            (b"\"\xff\"".to_vec(), InvalidJsonKind::Utf8, 1),
            (deep("1").into_bytes(), InvalidJsonKind::Depth, 128),
            (deep("1e400").into_bytes(), InvalidJsonKind::Depth, 128),
        ] {
            let expected = InvalidJson { kind, offset: Some(offset) };
            assert_eq!(validate(&json), Err(expected), "{}", json.escape_ascii());
        }
    }
}
