//! What was probably meant by a name that there is not.

/// The name that is one slip away, or differs in case and separators only.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    let distance = |name: &str| strsim::osa_distance(&word, &plain(name));
    let near = names.into_iter().map(|name| (distance(name), name));
    // One slip in two letters makes any word of another.
    let near = near.filter(|(distance, _)| *distance == 0 || (*distance == 1 && word.len() > 2));
    near.min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// `maxBody` and `max-body` are `max_body`.
fn plain(name: &str) -> String {
    name.chars().filter(|sign| !matches!(sign, '_' | '-')).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slip_is_forgiven() {
        let names = ["max_body", "listen", "ttl", "removeOnFail"];
        for (word, meant) in [
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
            assert_eq!(nearest(word, names), meant, "{word}");
        }
    }
}
