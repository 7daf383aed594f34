//! Finds the first fault of a body that is not valid JSON. It runs only after the parser has
//! rejected the body, so its speed does not matter for valid bodies.

/// Levels of arrays and objects that a body may have, including the outermost one.
pub const MAX_DEPTH: usize = 128;

/// The first fault of a body that is not valid JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidJson {
    pub kind: InvalidJsonKind,
    /// Offset in the decoded body of the first unexpected byte, or its length if it ends too early.
    /// `None` for [`InvalidJsonKind::Framing`].
    pub offset: Option<usize>,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidJsonKind {
    Syntax,
    Utf8,
    Depth,
    /// The body has invalid HTTP/1.1 chunks.
    Framing,
}

impl InvalidJsonKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Utf8 => "utf8",
            Self::Depth => "depth",
            Self::Framing => "framing",
        }
    }
}

impl InvalidJson {
    pub fn in_framing() -> Self {
        Self { kind: InvalidJsonKind::Framing, offset: None }
    }

    /// Finds the fault in a body that the parser has rejected.
    pub(crate) fn locate(bytes: &[u8]) -> Self {
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let mut reader = Reader { json: valid.as_bytes(), at: 0, open: Vec::new() };
        let kind = match reader.document() {
            Err(Stop::TooDeep) => InvalidJsonKind::Depth,
            // The valid prefix ends before bytes that are not UTF-8, and the reader needs more.
            _ if reader.at == valid.len() && valid.len() < bytes.len() => InvalidJsonKind::Utf8,
            _ => InvalidJsonKind::Syntax,
        };
        Self { kind, offset: Some(reader.at) }
    }
}

/// Why the reader stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At an unexpected byte, or at the end of a body that ends too early.
    Syntax,
    /// At the bracket that opens level [`MAX_DEPTH`] + 1.
    TooDeep,
}

/// What may follow, apart from white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// Reads by the grammar of RFC 8259, and stops at the first byte that violates it.
struct Reader<'a> {
    json: &'a [u8],
    at: usize,
    /// The closing brackets of the open arrays and objects.
    open: Vec<u8>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Stop> {
        let mut next = Expected::Value;
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            next = match (next, self.byte()) {
                (Expected::Nothing, None) => return Ok(()),
                (Expected::Value | Expected::ValueOrEnd, Some(b'{')) => self.enter(b'}')?,
                (Expected::Value | Expected::ValueOrEnd, Some(b'[')) => self.enter(b']')?,
                (Expected::ValueOrEnd, Some(b']')) | (Expected::KeyOrEnd, Some(b'}')) => {
                    self.close()
                }
                (Expected::Value | Expected::ValueOrEnd, Some(first)) => self.scalar(first)?,
                (Expected::Key | Expected::KeyOrEnd, Some(b'"')) => {
                    self.string()?;
                    Expected::Colon
                }
                (Expected::CommaOrEnd, Some(b',')) if self.open.last() == Some(&b'}') => {
                    self.advance(Expected::Key)
                }
                (Expected::Colon, Some(b':')) | (Expected::CommaOrEnd, Some(b',')) => {
                    self.advance(Expected::Value)
                }
                (Expected::CommaOrEnd, closing) if closing == self.open.last().copied() => {
                    self.close()
                }
                _ => return Err(Stop::Syntax),
            };
        }
    }

    fn byte(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn advance(&mut self, next: Expected) -> Expected {
        self.at += 1;
        next
    }

    fn skip(&mut self, is_wanted: impl Fn(u8) -> bool) -> usize {
        let begin = self.at;
        while self.byte().is_some_and(&is_wanted) {
            self.at += 1;
        }
        self.at - begin
    }

    fn enter(&mut self, closing: u8) -> Result<Expected, Stop> {
        if self.open.len() == MAX_DEPTH {
            return Err(Stop::TooDeep);
        }
        self.open.push(closing);
        Ok(self.advance(if closing == b'}' { Expected::KeyOrEnd } else { Expected::ValueOrEnd }))
    }

    fn close(&mut self) -> Expected {
        self.open.pop();
        self.at += 1;
        self.after_value()
    }

    fn after_value(&self) -> Expected {
        if self.open.is_empty() { Expected::Nothing } else { Expected::CommaOrEnd }
    }

    /// Reads a value that is not an array or an object.
    fn scalar(&mut self, first: u8) -> Result<Expected, Stop> {
        match first {
            b'"' => self.string()?,
            b't' => self.literal(b"true")?,
            b'f' => self.literal(b"false")?,
            b'n' => self.literal(b"null")?,
            _ => self.number()?,
        }
        Ok(self.after_value())
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), Stop> {
        word.iter().try_for_each(|expected| self.one(|byte| byte == *expected))
    }

    fn one(&mut self, is_wanted: impl Fn(u8) -> bool) -> Result<(), Stop> {
        if !self.byte().is_some_and(is_wanted) {
            return Err(Stop::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Stop> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Stop> {
        if self.skip(|byte| byte.is_ascii_digit()) == 0 { Err(Stop::Syntax) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<(), Stop> {
        self.at += 1;
        loop {
            self.skip(|byte| !matches!(byte, b'"' | b'\\' | 0..b' '));
            match self.byte() {
                Some(b'"') => return self.one(|_| true),
                Some(b'\\') => self.escape()?,
                _ => return Err(Stop::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Stop> {
        self.at += 1;
        if self.byte() != Some(b'u') {
            return self.one(|byte| b"\"\\/bfnrt".contains(&byte));
        }
        self.at += 1;
        (0..4).try_for_each(|_| self.one(|byte| byte.is_ascii_hexdigit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_located() {
        use InvalidJsonKind::{Depth, Syntax, Utf8};
        let deep = |inside: &str| [&b"[".repeat(128), inside.as_bytes()].concat();
        let after_newlines = b"{\n \"a\": 1,\n \"b\": tru }";
        for (json, kind, offset) in [
            (b"".to_vec(), Syntax, 0),
            (b" \n".to_vec(), Syntax, 2),
            (b"{".to_vec(), Syntax, 1),
            (b"Zq".to_vec(), Syntax, 0),
            (b"\xef\xbb\xbf{}".to_vec(), Syntax, 0),
            (b"{}{}".to_vec(), Syntax, 2),
            (b"{'a':1}".to_vec(), Syntax, 1),
            (b"{\"a\":01}".to_vec(), Syntax, 6),
            (b"{\"a\":1.}".to_vec(), Syntax, 7),
            (b"[1.".to_vec(), Syntax, 3),
            (b"[-]".to_vec(), Syntax, 2),
            (b"[1e+]".to_vec(), Syntax, 4),
            (b"[\"\\u12g4\"]".to_vec(), Syntax, 6),
            (b"[}".to_vec(), Syntax, 1),
            (b"]".to_vec(), Syntax, 0),
            (b"{\"a\":\"b\nc\"}".to_vec(), Syntax, 7),
            (b"{\"a\":\"\\x\"}".to_vec(), Syntax, 7),
            (b"{\"a\":1,}".to_vec(), Syntax, 7),
            (b"[1,]".to_vec(), Syntax, 3),
            (after_newlines.to_vec(), Syntax, 20),
            (b"{\"a\":\"\xff".to_vec(), Utf8, 6),
            (b"{\"a\":\"\xe2\x82".to_vec(), Utf8, 6),
            (b"{]\xff".to_vec(), Syntax, 1),
            (deep("["), Depth, 128),
            (deep("{]\u{fc}"), Depth, 128),
            (deep("\"[[\"x"), Syntax, 132),
        ] {
            let found = InvalidJson::locate(&json);
            assert_eq!((found.kind, found.offset), (kind, Some(offset)), "{}", json.escape_ascii());
        }
    }

    #[test]
    fn a_truncated_body_has_its_fault_at_its_end() {
        let json = "{\"a\": [1.5e3, true, null, \"b\\u00e9\u{20ac}\"], \"c\": {}}";
        for length in 0..json.len() {
            let found = InvalidJson::locate(&json.as_bytes()[..length]);
            let (kind, offset) = match json.get(..length) {
                Some(_) => (InvalidJsonKind::Syntax, length),
                None => (InvalidJsonKind::Utf8, json.floor_char_boundary(length)),
            };
            assert_eq!((found.kind, found.offset), (kind, Some(offset)), "{length}");
        }
    }

    /// Reads random sequences of JSON tokens, and compares the verdict with that of `serde_json`.
    #[test]
    fn the_reader_accepts_the_same_bodies_as_serde_json() {
        let tokens: Vec<&str> =
            "{ } [ ] , : \" \" \\ u 0 1 - + . e true null \u{1} \u{fc} d800".split(' ').collect();
        fastrand::seed(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..200_000 {
            let length = fastrand::usize(1..9);
            let json: String =
                (0..length).filter_map(|_| fastrand::choice(&tokens)).copied().collect();
            let mut reader = Reader { json: json.as_bytes(), at: 0, open: Vec::new() };
            let is_read = reader.document() == Ok(());
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok();
            assert_eq!(is_read, is_json, "{json:?} at {}", reader.at);
            *if is_json { &mut good } else { &mut bad } += 1;
        }
        assert!(good > 1000 && bad > 1000, "{good} {bad}");
    }
}
