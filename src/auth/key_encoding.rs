//! The form in which the database stores API keys, and the digest by which a key is found.

use crate::settings::{Secret, Section};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// The digest of an API key, by which it is found.
pub(super) type KeyDigest = [u8; 32];

/// The minimum bytes of a pepper. A shorter one causes a warning.
const MIN_PEPPER_BYTES: usize = 32;

/// The values of `users.api_key_encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
enum Name {
    #[serde(rename = "plain")]
    Plain,
    #[serde(rename = "sha256")]
    Sha256,
    #[serde(rename = "sha256-base64")]
    Sha256Base64,
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

/// The form in which the database stores API keys.
#[derive(Debug, Clone, Default)]
pub(super) enum ApiKeyEncoding {
    /// The key itself.
    #[default]
    Plain,
    /// The hex digits of the SHA-256 digest.
    Sha256,
    /// The SHA-256 digest in base64, of either alphabet, with or without padding.
    Sha256Base64,
    /// The hex digits of the HMAC-SHA256 by this pepper.
    HmacSha256(Box<hmac::Key>),
}

impl ApiKeyEncoding {
    /// Reads `api_key_encoding` and `pepper_file` of `[users]`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let name = section.value("api_key_encoding", Name::Plain);
        let pepper = section.secret_file("pepper_file");
        if name != Name::HmacSha256 && pepper.is_some() {
            section.warning("pepper_file", "is only used if api_key_encoding is \"hmac-sha256\"");
        }
        match name {
            Name::Plain => Self::Plain,
            Name::Sha256 => Self::Sha256,
            Name::Sha256Base64 => Self::Sha256Base64,
            Name::HmacSha256 => Self::peppered(section, pepper),
        }
    }

    fn peppered(section: &mut Section<'_>, pepper: Option<Secret>) -> Self {
        let Some(pepper) = pepper else {
            section.fault("pepper_file", "api_key_encoding \"hmac-sha256\" needs a readable file");
            return Self::Plain;
        };
        let bytes = pepper.reveal().as_bytes();
        if bytes.len() < MIN_PEPPER_BYTES {
            section.warning(
                "pepper_file",
                format!("has fewer than {MIN_PEPPER_BYTES} bytes, which may be guessed"),
            );
        }
        Self::HmacSha256(Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// The value of `users.api_key_encoding`.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sha256 => "sha256",
            Self::Sha256Base64 => "sha256-base64",
            Self::HmacSha256(_) => "hmac-sha256",
        }
    }

    /// The digest of a key that a caller sends.
    pub(super) fn digest_of_sent(&self, key: &str) -> KeyDigest {
        match self {
            Self::Plain | Self::Sha256 | Self::Sha256Base64 => digest_of(key.as_bytes()),
            Self::HmacSha256(pepper) => {
                let tag = hmac::sign(pepper, key.as_bytes());
                tag.as_ref().try_into().expect("an HMAC-SHA256 has 32 bytes")
            }
        }
    }

    /// The digest of a key that the database stores. The error is the form that it should have.
    pub(super) fn digest_of_stored(&self, stored: &str) -> Result<KeyDigest, &'static str> {
        match self {
            Self::Plain => Ok(digest_of(stored.as_bytes())),
            Self::Sha256 => from_hex(stored).ok_or("a SHA-256 digest in 64 hex digits"),
            Self::Sha256Base64 => from_base64(stored).ok_or("a SHA-256 digest in base64"),
            Self::HmacSha256(_) => from_hex(stored).ok_or("an HMAC-SHA256 in 64 hex digits"),
        }
    }
}

/// The SHA-256 digest of these bytes.
pub(super) fn digest_of(bytes: &[u8]) -> KeyDigest {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// Reads a digest from 64 hex digits.
fn from_hex(string: &str) -> Option<KeyDigest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(string, &mut digest).ok()?;
    Some(digest)
}

/// Reads a digest from base64, of either alphabet, with or without padding.
fn from_base64(string: &str) -> Option<KeyDigest> {
    let decode = |alphabet: &Alphabet| {
        let config = GeneralPurposeConfig::new();
        let config = config.with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(alphabet, config).decode(string).ok()
    };
    decode(&STANDARD).or_else(|| decode(&URL_SAFE))?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_from_hex() {
        let hex = "2C26B46B68FFC68FF99B453C1D30413413422D706483BFA0F98A5E886266E7AE";
        assert_eq!(from_hex(hex), Some(digest_of(b"foo")));
        assert_eq!(from_hex("2c"), None);
        assert_eq!(from_hex(&"+1".repeat(32)), None);
        assert_eq!(from_hex(&"é".repeat(32)), None);
    }

    #[test]
    fn a_digest_is_read_from_base64() {
        let bare = "LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564";
        let standard = bare.replace('-', "+").replace('_', "/");
        for good in [bare.to_owned(), format!("{bare}="), standard.clone(), format!("{standard}=")]
        {
            assert_eq!(from_base64(&good), Some(digest_of(b"foo")), "{good}");
        }
        let mixed = bare.replacen('-', "+", 1);
        let shorter = bare.get(1..).unwrap();
        for bad in [mixed.as_str(), shorter, "", "=", "2c26b46b", &format!("{bare}A")] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_hmac_matches_the_one_of_rfc_4231() {
        let pepper = hmac::Key::new(hmac::HMAC_SHA256, b"Jefe");
        let encoding = ApiKeyEncoding::HmacSha256(Box::new(pepper));
        let stored = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let sent = encoding.digest_of_sent("what do ya want for nothing?");
        assert_eq!(encoding.digest_of_stored(stored), Ok(sent));
    }
}
