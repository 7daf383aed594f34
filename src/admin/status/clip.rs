//! The bound on strings from outside.

/// Maximum characters of a string from outside.
const MAX_CHARACTERS: usize = 300;

/// A string of at most [`MAX_CHARACTERS`] characters; a longer one ends with `…`.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARACTERS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_strings_are_clipped_between_characters() {
        assert_eq!(clip("short"), "short");
        let long = "ä".repeat(MAX_CHARACTERS);
        assert_eq!(clip(&long), long);
        assert_eq!(clip(&format!("{long}b")), format!("{long}…"));
    }
}
