//! What is wrong with a body that is no JSON, and where. It is asked when the body is refused already, and then only.

use super::webhook::MAX_DEPTH;

/// The first thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidJson {
    pub kind: Kind,
    /// In the decoded body: of the first byte that cannot be where it is, or the length of a body that ends too early.
    pub offset: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Syntax,
    Utf8,
    Depth,
    /// The chunks of HTTP/1.1 that bring the body are none.
    Framing,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Utf8 => "utf8",
            Self::Depth => "depth",
            Self::Framing => "framing",
        }
    }
}

impl InvalidJson {
    pub(super) fn in_framing() -> Self {
        Self { kind: Kind::Framing, offset: None }
    }

    /// Looks for it in a text that has been refused.
    pub(super) fn in_text(bytes: &[u8]) -> Self {
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        let mut reader = Reader { text: valid.as_bytes(), at: 0, open: Vec::new() };
        let kind = match reader.document() {
            Err(Stop::TooDeep) => Kind::Depth,
            // What cannot be read further because it is cut short before bytes that are no text.
            _ if reader.at == valid.len() && valid.len() < bytes.len() => Kind::Utf8,
            _ => Kind::Syntax,
        };
        Self { kind, offset: Some(reader.at) }
    }
}

/// Why a reader has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// At a byte that cannot be where it is, or at the end of a text that ends too early.
    Syntax,
    /// At a bracket that opens one level too many.
    TooDeep,
}

/// What may come next, beside white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// Reads by the grammar of RFC 8259, and stops at the first byte that is against it.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// What closes the arrays and objects that are open.
    open: Vec<u8>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<(), Stop> {
        let mut next = Next::Value;
        loop {
            self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
            next = match (next, self.byte()) {
                (Next::Nothing, None) => return Ok(()),
                (Next::Value | Next::ValueOrEnd, Some(b'{')) => self.enter(b'}')?,
                (Next::Value | Next::ValueOrEnd, Some(b'[')) => self.enter(b']')?,
                (Next::ValueOrEnd, Some(b']')) | (Next::KeyOrEnd, Some(b'}')) => self.leave(),
                (Next::Value | Next::ValueOrEnd, Some(first)) => self.scalar(first)?,
                (Next::Key | Next::KeyOrEnd, Some(b'"')) => {
                    self.string()?;
                    Next::Colon
                }
                (Next::CommaOrEnd, Some(b',')) if self.open.last() == Some(&b'}') => {
                    self.pass(Next::Key)
                }
                (Next::Colon, Some(b':')) | (Next::CommaOrEnd, Some(b',')) => {
                    self.pass(Next::Value)
                }
                (Next::CommaOrEnd, closing) if closing == self.open.last().copied() => self.leave(),
                _ => return Err(Stop::Syntax),
            };
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn pass(&mut self, next: Next) -> Next {
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

    fn enter(&mut self, closing: u8) -> Result<Next, Stop> {
        if self.open.len() == MAX_DEPTH {
            return Err(Stop::TooDeep);
        }
        self.open.push(closing);
        Ok(self.pass(if closing == b'}' { Next::KeyOrEnd } else { Next::ValueOrEnd }))
    }

    fn leave(&mut self) -> Next {
        self.open.pop();
        self.at += 1;
        self.after_value()
    }

    fn after_value(&self) -> Next {
        if self.open.is_empty() { Next::Nothing } else { Next::CommaOrEnd }
    }

    /// Anything but an array or an object.
    fn scalar(&mut self, first: u8) -> Result<Next, Stop> {
        match first {
            b'"' => self.string()?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        }
        Ok(self.after_value())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Stop> {
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
    fn the_first_fault_is_found_where_it_is() {
        use Kind::{Depth, Syntax, Utf8};
        let deep = |inside: &str| [&b"[".repeat(128), inside.as_bytes()].concat();
        let after_newlines = b"{\n \"a\": 1,\n \"b\": tru }";
        for (text, kind, offset) in [
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
            let found = InvalidJson::in_text(&text);
            assert_eq!((found.kind, found.offset), (kind, Some(offset)), "{}", text.escape_ascii());
        }
    }

    /// A whole text that is cut off, wherever, ends too early.
    #[test]
    fn what_is_cut_off_ends_too_early() {
        let text = "{\"a\": [1.5e3, true, null, \"b\\u00e9\u{20ac}\"], \"c\": {}}";
        for length in 0..text.len() {
            let found = InvalidJson::in_text(&text.as_bytes()[..length]);
            let (kind, offset) = match text.get(..length) {
                Some(_) => (Kind::Syntax, length),
                None => (Kind::Utf8, text.floor_char_boundary(length)),
            };
            assert_eq!((found.kind, found.offset), (kind, Some(offset)), "{length}");
        }
    }

    /// Texts of the signs that JSON is made of: what is read to its end is what another reader takes.
    #[test]
    fn nothing_else_is_found_wrong_than_is() {
        let signs: Vec<&str> =
            "{ } [ ] , : \" \" \\ u 0 1 - + . e true null \u{1} \u{fc} d800".split(' ').collect();
        fastrand::seed(7);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..200_000 {
            let length = fastrand::usize(1..9);
            let text: String =
                (0..length).filter_map(|_| fastrand::choice(&signs)).copied().collect();
            let mut reader = Reader { text: text.as_bytes(), at: 0, open: Vec::new() };
            let is_read = reader.document() == Ok(());
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            assert_eq!(is_read, is_json, "{text:?} at {}", reader.at);
            *if is_json { &mut good } else { &mut bad } += 1;
        }
        assert!(good > 1000 && bad > 1000, "{good} {bad}");
    }
}
