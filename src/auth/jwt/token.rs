//! Parses tokens into their three parts and header. Nothing is verified here.

use crate::auth::jwt::members::JsonMembers;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

/// A credential with the shape of a token: three non-empty base64url parts, separated by dots. The
/// first part is a JSON object with `alg`. Any other credential is an API key.
#[derive(Debug)]
pub(in crate::auth) struct Token<'a> {
    /// The signed bytes: header and claims as sent.
    pub(super) message: &'a str,
    claims: &'a str,
    pub(super) signature: &'a str,
    /// The header, or why it is rejected.
    pub(super) header: Result<TokenHeader, &'static str>,
}

impl<'a> Token<'a> {
    /// `None` if the credential is not a token.
    pub(in crate::auth) fn read(credential: &'a str) -> Option<Self> {
        let mut parts = credential.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let is_token =
            parts.next().is_none() && [header, claims, signature].into_iter().all(is_part);
        let json = is_token.then(|| URL_SAFE_NO_PAD.decode(header).ok()).flatten()?;
        let members = JsonMembers::read(&json)?;
        let message = credential.get(..header.len() + 1 + claims.len())?;
        let header = members.has("alg").then(|| TokenHeader::read(&members))?;
        Some(Self { message, claims, signature, header })
    }

    /// The JSON of the claims.
    pub(super) fn claims(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.claims).ok()
    }
}

fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The members of a header that Hookgate uses. All others are ignored, as RFC 7515 4 requires.
#[derive(Debug)]
pub(super) struct TokenHeader {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// The media type of the token.
    kind: Option<String>,
}

impl TokenHeader {
    fn read(members: &JsonMembers<'_>) -> Result<Self, &'static str> {
        // `crit` lists extensions that must be supported (RFC 7515 4.1.11). Hookgate supports none.
        if members.has("crit") {
            return Err("its header has crit");
        }
        // `b64: false` means a payload that is not base64url (RFC 7797).
        if !matches!(members.get("b64"), Ok(None | Some(Value::Bool(true)))) {
            return Err("its header has b64");
        }
        let algorithm = match members.get("alg") {
            Ok(Some(Value::String(name))) => name.parse().ok(),
            _ => None,
        };
        let key_id = match members.get("kid") {
            Ok(None | Some(Value::Null)) => None,
            Ok(Some(Value::String(id))) => Some(id),
            _ => return Err("its kid is not a string"),
        };
        let kind = match members.get("typ") {
            Ok(Some(Value::String(kind))) => Some(kind),
            _ => None,
        };
        let algorithm = algorithm.ok_or("its alg is not a supported algorithm")?;
        Ok(Self { algorithm, key_id, kind })
    }

    /// Whether `typ` is one of these types. Media types are compared ignoring case, and may omit
    /// `application/` (RFC 7515 4.1.9).
    pub(super) fn is_one_of(&self, types: &[String]) -> bool {
        let is_same = |kind: &str, other: &str| short(kind).eq_ignore_ascii_case(short(other));
        self.kind.as_ref().is_some_and(|kind| types.iter().any(|each| is_same(kind, each)))
    }
}

fn short(media_type: &str) -> &str {
    const PREFIX: &str = "application/";
    match media_type.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) && !rest.contains('/') => rest,
        _ => media_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(header: &str) -> String {
        format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn shape_and_header_tell_a_token_from_an_api_key() {
        for header in [r#"{"alg":1}"#, r#"{"alg":"HS256","alg":1}"#, r#"{"x":"\ud800","alg":null}"#]
        {
            assert!(Token::read(&credential(header)).is_some(), "{header}");
        }
        for header in ["{}", "[]", "", "{", r#""alg""#, r#"{"Alg":"HS256"}"#, r#"{"x":{"alg":1}}"#]
        {
            assert!(Token::read(&credential(header)).is_none(), "{header}");
        }
        let good = credential(r#"{"alg":"HS256"}"#);
        for other in [".", "=", ".AAAA", " "] {
            assert!(Token::read(&format!("{good}{other}")).is_none(), "{other:?}");
        }
        assert!(Token::read("prefix.id.secret").is_none());
    }

    #[test]
    fn types_match_ignoring_case_and_the_application_prefix() {
        let is = |kind: &str, types: &[&str]| {
            let types: Vec<String> = types.iter().map(|each| (*each).to_owned()).collect();
            let header = format!(r#"{{"alg":"HS256","typ":"{kind}"}}"#);
            Token::read(&credential(&header)).unwrap().header.unwrap().is_one_of(&types)
        };
        assert!(is("at+jwt", &["JWT", "at+jwt"]));
        assert!(is("APPLICATION/at+JWT", &["at+jwt"]) && is("AT+jwt", &["application/at+jwt"]));
        assert!(!is("JWT", &["at+jwt"]) && !is("", &["JWT"]) && !is("x/jwt", &["jwt"]));
    }
}
