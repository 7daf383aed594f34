//! JSON strictly by the grammar of RFC 8259: a second reader, slow and simple.

use std::ops::Range;

/// A document: its kind, its depth, and the positions of the members of the outermost object.
#[derive(Debug, Default)]
pub struct Document {
    pub is_object: bool,
    pub deepest: usize,
    /// Keys and values as they are written; keys with their quotes.
    pub members: Vec<(Range<usize>, Range<usize>)>,
}

/// Reads a whole string; `None` if it is not JSON.
pub fn read(text: &str) -> Option<Document> {
    let mut reader =
        Reader { text: text.as_bytes(), at: 0, depth: 0, document: Document::default() };
    reader.space();
    reader.document.is_object = reader.peek() == Some(b'{');
    reader.value()?;
    reader.space();
    (reader.at == text.len()).then_some(reader.document)
}

/// A string without quotes and escapes; `None` if it has half of a surrogate pair.
pub fn decode(string: &str) -> Option<String> {
    let mut units = Vec::new();
    let mut rest = string.get(1..string.len() - 1)?.chars();
    while let Some(char) = rest.next() {
        let char = match char {
            '\\' => match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String = rest.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).ok()?);
                    continue;
                }
                itself => itself,
            },
            char => char,
        };
        units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units).ok()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    document: Document,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'{' => self.nested(b'}', Self::member),
            b'[' => self.nested(b']', Self::value),
            b'"' => self.string(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// An array or an object: elements between commas.
    fn nested(&mut self, end: u8, element: fn(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        self.depth += 1;
        self.document.deepest = self.document.deepest.max(self.depth);
        self.space();
        if self.take(end).is_none() {
            loop {
                self.space();
                element(self)?;
                self.space();
                if self.take(b',').is_none() {
                    self.take(end)?;
                    break;
                }
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn member(&mut self) -> Option<()> {
        let key = self.at;
        self.string()?;
        let key = key..self.at;
        self.space();
        self.take(b':')?;
        self.space();
        let value = self.at;
        let is_outermost = self.depth == 1;
        self.value()?;
        if is_outermost {
            self.document.members.push((key, value..self.at));
        }
        Some(())
    }

    fn literal(&mut self, word: &[u8]) -> Option<()> {
        word.iter().try_for_each(|byte| self.take(*byte))
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => (0..4).try_for_each(|_| {
                let is_digit = self.peek()?.is_ascii_hexdigit();
                self.at += 1;
                is_digit.then_some(())
            }),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if self.take(b'e').or_else(|| self.take(b'E')).is_some() {
            let _ = self.take(b'+').or_else(|| self.take(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }
}
