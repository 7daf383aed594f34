//! Escapes text from outside before it is shown to people. Identifiers, documents and messages of
//! servers may contain characters that end a line, control a terminal or reorder what it shows.

use std::fmt::{self, Write};

/// A writer that escapes control characters, separators of lines and paragraphs, and marks that
/// change the text direction, as in `\n` or `\u{1b}`.
#[derive(Debug)]
pub struct Escaped<W>(pub W);

impl<W: Write> Write for Escaped<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, unsafe_character)) =
            rest.char_indices().find(|(_, character)| is_unsafe(*character))
        {
            let (before, after) = rest.split_at(at);
            write!(self.0, "{before}{}", unsafe_character.escape_default())?;
            rest = after.get(unsafe_character.len_utf8()..).unwrap_or_default();
        }
        self.0.write_str(rest)
    }
}

/// Formats a value as one line, with the characters escaped that [`Escaped`] escapes.
pub fn printable(value: impl fmt::Display) -> String {
    let mut line = Escaped(String::new());
    write!(line, "{value}").expect("writing into memory succeeds");
    line.0
}

fn is_unsafe(character: char) -> bool {
    // C0, DEL and C1; line and paragraph separators; Unicode's Bidi_Control.
    character.is_control()
        || matches!(
            character,
            '\u{2028}'
                | '\u{2029}'
                | '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_characters_that_control_the_output_are_escaped() {
        for (text, expected) in [
            ("", ""),
            ("Zoë \u{1f469}\u{200d}\u{1f52c} 'a\\n'", "Zoë \u{1f469}\u{200d}\u{1f52c} 'a\\n'"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31m\u{7}\u{7f}\0", "\\u{1b}[31m\\u{7}\\u{7f}\\u{0}"),
            ("\u{9b}31m\u{85}", "\\u{9b}31m\\u{85}"),
            ("a\u{2028}\u{2029}", "a\\u{2028}\\u{2029}"),
            ("\u{202e}x\u{2069}\u{61c}\u{200f}", "\\u{202e}x\\u{2069}\\u{61c}\\u{200f}"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
