//! Identifiers. Each kind has its own type, so that the compiler rejects a mix-up.

use compact_str::CompactString;
use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use uuid::timestamp::context::ThreadLocalContext;
use uuid::{ContextV7, Timestamp, Uuid};

/// Maximum length of an identifier in bytes. The API fixes it for webhook ids. The other
/// identifiers have the same limit, because an identifier that no request can name need not be
/// kept.
pub const MAX_ID_BYTES: usize = 256;

/// An identifier that is empty or longer than [`MAX_ID_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("identifier is empty or longer than {MAX_ID_BYTES} bytes")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to [`MAX_ID_BYTES`] bytes of UTF-8. The 24 hex digits of an ObjectId are held inline.
        #[derive(Debug, Clone)]
        pub struct $name(CompactString);

        impl $name {
            pub fn new(text: &str) -> Result<Self, IdError> {
                if text.is_empty() || text.len() > MAX_ID_BYTES {
                    return Err(IdError);
                }
                Ok(Self(CompactString::new(text)))
            }

            #[inline]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

/// Ids that are equal exactly if their bytes are.
macro_rules! exact_id {
    ($(#[$doc:meta])* $name:ident) => {
        id!(
            $(#[$doc])*
            #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
            $name
        );
    };
}

id!(
    /// The tenant: a caller reaches only workflows of its own organization. Hex digits are compared
    /// without regard to case, see [`OrganizationId::canonical`].
    OrganizationId
);
exact_id!(
    /// The user on whose behalf a request is made.
    UserId
);
exact_id!(
    /// The id of a workflow in the database.
    WorkflowId
);
exact_id!(
    /// The name of a webhook: in the body of a request, and in a trigger node. One from a body may
    /// be empty, see [`WebhookId::from_body`].
    WebhookId
);

impl OrganizationId {
    /// The form that identifies the organization, see [`normalize_id`].
    #[inline]
    pub fn canonical(&self) -> Cow<'_, str> {
        normalize_id(&self.0)
    }

    /// The spelling for a token if no document says how the organization is spelled: that of an
    /// ObjectId or a UUID in a document, in lower case. Any other id stays as it is.
    #[must_use]
    pub fn with_lower_case_hex(self) -> Self {
        match self.canonical() {
            Cow::Owned(canonical) => Self(CompactString::from(canonical)),
            Cow::Borrowed(_) => self,
        }
    }
}

impl PartialEq for OrganizationId {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.canonical() == other.canonical()
    }
}

impl Eq for OrganizationId {}

impl Hash for OrganizationId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

const OBJECT_ID_DIGITS: usize = 24;
const UUID_DIGITS: usize = 36;

/// The form in which an id is looked up: an ObjectId or a UUID in lower case, because its hex
/// digits are case-insensitive. Any other id is unchanged. Borrowed if nothing changes.
pub fn normalize_id(id: &str) -> Cow<'_, str> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let is_hex = |(at, byte): (usize, u8)| match id.len() {
        UUID_DIGITS if HYPHENS.contains(&at) => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    let is_hex_id = matches!(id.len(), OBJECT_ID_DIGITS | UUID_DIGITS)
        && id.bytes().any(|byte| byte.is_ascii_uppercase())
        && id.bytes().enumerate().all(is_hex);
    if is_hex_id { Cow::Owned(id.to_ascii_lowercase()) } else { Cow::Borrowed(id) }
}

/// The integer that a floating-point number stands for: it has no fraction and is below 2^53. Some
/// drivers and languages write every number as such a one.
pub fn whole_number(number: f64) -> Option<i64> {
    const LIMIT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and below the limit")]
    (number.fract() == 0.0 && number.abs() < LIMIT).then_some(number as i64)
}

impl WebhookId {
    /// The webhook id in a body. It may be empty there: an empty id matches no trigger.
    pub fn from_body(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(IdError);
        }
        Ok(Self(CompactString::new(text)))
    }
}

thread_local! {
    /// Keeps ids of the same millisecond in order. `Uuid::now_v7` shares one context between all
    /// threads behind a lock.
    static UUID_CONTEXT: ContextV7 = const { ContextV7::new() };
}

/// The identifier of a request in logs, answers and jobs.
///
/// 1 to 128 bytes of printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(CompactString);

impl RequestId {
    /// Maximum length of an identifier from a caller, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// The caller's identifier, or a new one if it is missing or invalid.
    pub fn from_header_or_new(offered: Option<&[u8]>) -> Self {
        let is_valid = |text: &&str| {
            !text.is_empty()
                && text.len() <= Self::MAX_BYTES
                && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        match offered.and_then(|bytes| std::str::from_utf8(bytes).ok()).filter(is_valid) {
            Some(text) => Self(CompactString::new(text)),
            None => Self::generate(),
        }
    }

    /// A new identifier: UUID version 7, so that identifiers sort by time.
    fn generate() -> Self {
        let mut buffer = Uuid::encode_buffer();
        let id = Uuid::new_v7(Timestamp::now(ThreadLocalContext::new(&UUID_CONTEXT)));
        Self(CompactString::new(id.as_simple().encode_lower(&mut buffer)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_a_minimum_and_a_maximum_length() {
        assert_eq!(WebhookId::new(""), Err(IdError));
        assert_eq!(WebhookId::new(&"x".repeat(257)), Err(IdError));
        assert_eq!(WebhookId::new(&"x".repeat(256)).unwrap().as_str().len(), 256);
        assert_eq!(WebhookId::from_body("").unwrap().as_str(), "");
        assert_eq!(WebhookId::from_body(&"x".repeat(257)), Err(IdError));
    }

    #[test]
    fn only_hex_ids_are_converted_to_lower_case() {
        for id in ["64D2F9C5e8a1d4e001a0b1c3", "0189F7E4-7A2B-7c3d-8e4f-5A6B7C8D9E0F"] {
            assert_eq!(normalize_id(id), id.to_ascii_lowercase());
        }
        for id in [
            "64D2F9C5e8a1d4e001a0b1cG",
            "64D2F9C5e8a1d4e001a0b1c",
            "0189F7E4-7A2B-7c3d-8e4f05A6B7C8D9E0F",
            "User_1",
            "",
        ] {
            assert_eq!(normalize_id(id), id);
        }
    }

    #[test]
    fn organizations_are_compared_without_regard_to_the_case_of_hex() {
        let organization = |id: &str| OrganizationId::new(id).unwrap();
        let (lower, upper) = ("64d2f9c5e8a1d4e001a0b1c3", "64D2F9C5E8A1D4E001A0B1C3");
        assert_eq!(organization(lower), organization(upper));
        assert_eq!(organization(upper).as_str(), upper);
        assert_eq!(organization(upper).with_lower_case_hex().as_str(), lower);
        assert_ne!(organization("Org"), organization("org"));
        let uuid = "0189F7E4-7A2B-7C3D-8E4F-5A6B7C8D9E0F";
        assert_eq!(organization(uuid).with_lower_case_hex().as_str(), uuid.to_ascii_lowercase());
        assert_eq!(organization("Org").with_lower_case_hex().as_str(), "Org");
        assert_eq!(organization(uuid).canonical(), uuid.to_ascii_lowercase());
    }

    #[test]
    fn a_whole_number_has_no_fraction_and_is_exact() {
        let limit = 9_007_199_254_740_992.0;
        for (number, whole) in [
            (42.0, Some(42)),
            (-1.0, Some(-1)),
            (-0.0, Some(0)),
            (limit - 1.0, Some(9_007_199_254_740_991)),
            (limit, None),
            (-limit, None),
            (0.5, None),
            (f64::NAN, None),
            (f64::INFINITY, None),
        ] {
            assert_eq!(whole_number(number), whole, "{number}");
        }
    }

    #[test]
    fn a_request_id_of_a_caller_must_be_printable_ascii() {
        let request_id = |offered: &[u8]| RequestId::from_header_or_new(Some(offered));
        assert_eq!(request_id(b"abc-1").as_str(), "abc-1");
        for invalid in [&b""[..], b"a\tb", "ü".as_bytes(), &[b'x'; 129]] {
            assert_eq!(request_id(invalid).as_str().len(), 32);
        }
        assert_ne!(
            RequestId::from_header_or_new(None).as_str(),
            RequestId::from_header_or_new(None).as_str()
        );
    }
}
