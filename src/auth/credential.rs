//! The header fields that carry credentials, and the kind of credential that each value is.

use crate::settings::Section;

/// The header field whose values begin with a scheme.
const AUTHORIZATION: &str = "Authorization";

/// The scheme of tokens. API keys may use it too.
const BEARER: &str = "Bearer";

/// Header fields that Hookgate reads for another purpose, logs or passes on.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "idempotency-key",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
];

/// Which header fields carry credentials, and by which schemes.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// The names of the fields. Exactly one of them must be present, with one value.
    pub headers: Vec<String>,
    /// The schemes of `Authorization`.
    pub schemes: Vec<String>,
}

/// The value of a header field that carries credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialField<'a> {
    /// A value of `Authorization`: a scheme and a credential.
    Authorization(&'a [u8]),
    /// A value of another field: the API key itself.
    ApiKey(&'a [u8]),
}

/// A credential, by where it may be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    TokenOrApiKey(&'a str),
    ApiKey(&'a str),
}

impl CredentialSettings {
    /// Reads `headers` and `schemes` of `[auth.api_key]`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let headers = names(section, "headers", AUTHORIZATION);
        for name in &headers {
            if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
                section.fault(
                    "headers",
                    format!("{name} is reserved; Hookgate reads this header for another purpose"),
                );
            }
        }
        Self { headers, schemes: names(section, "schemes", BEARER) }
    }

    /// Whether a token can be sent. It is accepted only after `Bearer` in `Authorization`.
    pub(super) fn accept_tokens(&self) -> bool {
        let has =
            |names: &[String], name: &str| names.iter().any(|each| each.eq_ignore_ascii_case(name));
        has(&self.headers, AUTHORIZATION) && has(&self.schemes, BEARER)
    }

    /// Whether the values of this field begin with a scheme.
    fn has_scheme(name: &str) -> bool {
        name.eq_ignore_ascii_case(AUTHORIZATION)
    }

    /// Returns the credential of a field; `None` if it has none or another scheme. The case of the
    /// scheme is ignored.
    pub(super) fn credential<'a>(&self, field: CredentialField<'a>) -> Option<Credential<'a>> {
        match field {
            CredentialField::Authorization(value) => {
                let (scheme, credential) = text(value)?.split_once(' ')?;
                let credential = credential.trim_start();
                let is_accepted = self.schemes.iter().any(|each| each.eq_ignore_ascii_case(scheme));
                if credential.is_empty() || !is_accepted {
                    return None;
                }
                Some(if scheme.eq_ignore_ascii_case(BEARER) {
                    Credential::TokenOrApiKey(credential)
                } else {
                    Credential::ApiKey(credential)
                })
            }
            CredentialField::ApiKey(value) => {
                text(value).filter(|key| !key.is_empty()).map(Credential::ApiKey)
            }
        }
    }

    /// The value of `WWW-Authenticate`.
    pub fn challenge(&self) -> String {
        self.schemes.join(", ")
    }

    /// Says how to send a credential, for the answer to a caller that has sent none.
    pub fn instruction(&self) -> String {
        const START: &str = "Authentication required: send";
        let headers = self.headers.join(" or ");
        if !self.headers.iter().any(|name| Self::has_scheme(name)) {
            return format!("{START} your API key in {headers}");
        }
        let mut ways = Vec::new();
        for name in &self.headers {
            if Self::has_scheme(name) {
                ways.extend(self.schemes.iter().map(|scheme| {
                    let is_bearer = scheme.eq_ignore_ascii_case(BEARER);
                    let kinds = if is_bearer { "a JWT or an API key" } else { "an API key" };
                    format!("{scheme} with {kinds}")
                }));
            } else {
                ways.push(format!("{name} with an API key"));
            }
        }
        let ways = ways.join(" or ");
        format!("{START} exactly one {headers} header: {ways}")
    }
}

/// Reads a list of names: at least one, each a token of RFC 9110 5.6.2, no two of them equal.
fn names(section: &mut Section<'_>, key: &str, default: &str) -> Vec<String> {
    let names: Vec<String> = section.value(key, vec![default.to_owned()]);
    if names.is_empty() {
        section.fault(key, "at least one is needed");
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            section.fault(key, "a name is empty");
        } else if !name.bytes().all(is_token_byte) {
            let message = format!("{name:?} has characters that are not allowed in a name");
            section.fault(key, message);
        }
        if names.iter().take(index).any(|other| other.eq_ignore_ascii_case(name)) {
            section.fault(key, format!("names {name} twice"));
        }
    }
    names
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SettingsReader;

    /// The settings of a section, and the number of faults.
    fn settings(section: &str) -> (CredentialSettings, usize) {
        let mut reader = SettingsReader::new(toml::from_str(section).unwrap(), std::iter::empty());
        let settings = CredentialSettings::read(&mut reader.section("k"));
        (settings, reader.into_faults().len())
    }

    #[test]
    fn only_the_configured_schemes_are_accepted() {
        use Credential::{ApiKey, TokenOrApiKey};
        let (default, _) = settings("");
        let credential = |settings: &CredentialSettings, value: &'static [u8]| {
            settings.credential(CredentialField::Authorization(value))
        };
        assert_eq!(credential(&default, b"Bearer abc"), Some(TokenOrApiKey("abc")));
        assert_eq!(credential(&default, b"bEaReR   abc "), Some(TokenOrApiKey("abc")));
        for value in
            [&b"Basic abc"[..], b"ApiKey abc", b"Bearer", b"Bearer ", b"abc", b"", b"Bearer \xff"]
        {
            assert_eq!(credential(&default, value), None);
        }
        let (other, faults) = settings("[k]\nschemes = [\"ApiKey\"]\n");
        assert_eq!((faults, other.accept_tokens()), (0, false));
        assert_eq!(credential(&other, b"apikey a.b.c"), Some(ApiKey("a.b.c")));
        assert_eq!(credential(&other, b"Bearer abc"), None);
    }

    #[test]
    fn the_instruction_names_every_way() {
        let start = "Authentication required: send";
        for (section, expected) in [
            ("", "exactly one Authorization header: Bearer with a JWT or an API key"),
            ("[k]\nheaders = [\"X-API-Key\"]\n", "your API key in X-API-Key"),
            ("[k]\nheaders = [\"X-Key\", \"Api\"]\n", "your API key in X-Key or Api"),
            (
                "[k]\nheaders = [\"authorization\", \"X-Key\"]\nschemes = [\"bearer\", \"Key\"]\n",
                "exactly one authorization or X-Key header: bearer with a JWT or an API key or Key with an API key or X-Key with an API key",
            ),
        ] {
            assert_eq!(settings(section).0.instruction(), format!("{start} {expected}"));
        }
    }

    #[test]
    fn a_list_of_names_has_no_duplicate_and_no_invalid_name() {
        for (names, faults) in [
            ("[]", 1),
            ("[\"a\", \"A\"]", 1),
            ("[\"\"]", 1),
            ("[\"a b\"]", 1),
            ("[\"a:\"]", 1),
            ("[\"\u{e4}\"]", 1),
            ("[\"Idempotency-Key\"]", 1),
            ("[\"X-Request-Id\"]", 1),
            ("[\"X-A\", \"authorization\"]", 0),
        ] {
            assert_eq!(settings(&format!("[k]\nheaders = {names}\n")).1, faults, "{names}");
        }
    }
}
