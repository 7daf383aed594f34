//! Leaves out of the head of a request what carries a secret, so that no job contains it.

use crate::queue::bullmq::request::HeaderFields;
use std::borrow::Cow;
use std::fmt;

/// Header fields without those of some names.
#[derive(Clone, Copy)]
pub struct HeadersWithout<'a, N> {
    fields: &'a dyn HeaderFields,
    names: &'a [N],
}

impl<'a, N: AsRef<str>> HeadersWithout<'a, N> {
    /// The names are compared without regard to case.
    pub fn new(fields: &'a dyn HeaderFields, names: &'a [N]) -> Self {
        Self { fields, names }
    }
}

impl<N: AsRef<str> + Sync> HeaderFields for HeadersWithout<'_, N> {
    fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
        if !self.names.iter().any(|without| without.as_ref().eq_ignore_ascii_case(name)) {
            self.fields.visit_values(name, visit);
        }
    }
}

impl<N> fmt::Debug for HeadersWithout<'_, N> {
    /// Not the fields: they contain what is left out.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HeadersWithout").finish_non_exhaustive()
    }
}

/// A query without the parameters of some names. The names are compared with those of the query
/// after decoding. The rest of the query stays as it is.
pub fn query_without<'q>(query: &'q str, names: &[impl AsRef<str>]) -> Cow<'q, str> {
    let is_kept = |parameter: &&str| {
        let decoded = form_urlencoded::parse(parameter.as_bytes()).next();
        !decoded.is_some_and(|(name, _)| names.iter().any(|without| without.as_ref() == name))
    };
    let parameters = || query.split('&');
    if parameters().all(|parameter| is_kept(&parameter)) {
        return Cow::Borrowed(query);
    }
    Cow::Owned(parameters().filter(is_kept).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_left_out_however_their_names_are_encoded() {
        for (query, expected) in [
            ("", ""),
            ("a=1", "a=1"),
            ("token=s", ""),
            ("token", ""),
            ("token=", ""),
            ("a=1&token=s&b=%20+x", "a=1&b=%20+x"),
            ("token=s&a=1&token=t", "a=1"),
            ("%74oken=s&a=1", "a=1"),
            ("tok%65n=s&a", "a"),
            ("my+key=s&my%20key=t&mykey=u", "mykey=u"),
            ("Token=s&tokens=t&xtoken=u&a=token", "Token=s&tokens=t&xtoken=u&a=token"),
            ("&&a=1&&token=s&", "&&a=1&&"),
            ("a=b=c&token=s=t", "a=b=c"),
            ("a=%zz&token=%zz", "a=%zz"),
            ("=x&a", "=x&a"),
        ] {
            assert_eq!(query_without(query, &["token", "my key"]), expected, "{query}");
        }
        assert_eq!(query_without("=x&a", &[""]), "a");
        assert!(matches!(query_without("a=1&b", &["token"]), Cow::Borrowed("a=1&b")));
        assert_eq!(query_without("token=s", &[""; 0]), "token=s");
    }

    #[derive(Debug)]
    struct Fields;

    impl HeaderFields for Fields {
        fn visit_values(&self, name: &str, visit: &mut dyn FnMut(&[u8])) {
            visit(b"first");
            visit(name.as_bytes());
        }
    }

    #[test]
    fn headers_are_left_out_by_name() {
        let headers = HeadersWithout::new(&Fields, &["X-Secret", "authorization"]);
        let values = |name: &str| {
            let mut values = Vec::new();
            headers.visit_values(name, &mut |value| values.push(value.to_vec()));
            values
        };
        assert_eq!(values("x-secret"), [[0_u8; 0]; 0]);
        assert_eq!(values("authorization"), [[0_u8; 0]; 0]);
        assert_eq!(values("x-event"), [b"first".to_vec(), b"x-event".to_vec()]);
        assert_eq!(format!("{headers:?}"), "HeadersWithout { .. }");
    }

    proptest! {
        /// A reader of the rest sees what it would have seen, without the named parameters.
        #[test]
        fn a_reader_sees_every_other_parameter(query in "[a-c%64126&=+ ]{0,40}") {
            let rest = query_without(&query, &["a", "b "]);
            let read = |text: &str| -> Vec<(String, String)> {
                form_urlencoded::parse(text.as_bytes()).into_owned().collect()
            };
            let mut expected = read(&query);
            expected.retain(|(name, _)| name != "a" && name != "b ");
            prop_assert_eq!(read(&rest), expected);
        }
    }
}
