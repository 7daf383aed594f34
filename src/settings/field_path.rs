//! Dotted paths to the fields of documents.

/// What is wrong with a path; `None` if it can be the path of a field in MongoDB.
pub fn path_fault(path: &str) -> Option<&'static str> {
    path.split('.').find_map(|name| match name {
        "" => Some("a name is empty"),
        _ if name.starts_with('$') => Some("the name of a field does not begin with $"),
        _ if name.contains('\0') => Some("the name of a field contains no NUL character"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_names_that_a_document_can_have() {
        for path in ["a", "a.b", "a$.b", " ", "0.a", "_id"] {
            assert_eq!(path_fault(path), None, "{path}");
        }
        for path in ["", ".", "a.", ".a", "a..b", "$a", "a.$b", "a\0b", "a.\0"] {
            assert!(path_fault(path).is_some(), "{path:?}");
        }
    }
}
