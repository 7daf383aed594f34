//! Suggestions for misspelled names.

/// The name that differs from `word` by at most one typing error, or only in case and separators.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = normalized(word);
    let distance = |name: &str| strsim::osa_distance(&word, &normalized(name));
    let near = names.into_iter().map(|name| (distance(name), name));
    // Words of two letters are too short: one typing error turns any of them into another.
    let near = near.filter(|(distance, _)| *distance == 0 || (*distance == 1 && word.len() > 2));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// The name in lower case without separators: `maxBody`, `max-body` and `max_body` are equal.
fn normalized(name: &str) -> String {
    name.chars()
        .filter(|character| !matches!(character, '_' | '-'))
        .collect::<String>()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_typing_error_is_corrected() {
        let names = ["max_body", "listen", "ttl", "removeOnFail"];
        for (word, expected) in [
            ("max_bdy", Some("max_body")),
            ("maxBody", Some("max_body")),
            ("max-body", Some("max_body")),
            ("lisetn", Some("listen")),
            ("listem", Some("listen")),
            ("listens", Some("listen")),
            ("remove_on_fail", Some("removeOnFail")),
            ("tlt", Some("ttl")),
            ("tt", None),
            ("lsitne", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
    }
}
