//! Schemes whose credential is in the request itself.

use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::keys::{BASE64, SecretBytes, equal_secret};
use crate::endpoints::verification::refusal::{Refusal, RefusalKind};
use crate::endpoints::verification::request::DeliveryRequest;
use crate::endpoints::verification::signature::required_header;
use base64::Engine;

/// Values longer than this are compared with no secret.
const LONGEST: usize = 16 * 1024;

/// The index of the secret that a value equals.
fn compare(secrets: &[SecretBytes], given: &[u8], part: &str) -> Result<usize, Refusal> {
    let found = if given.len() > LONGEST { None } else { equal_secret(secrets, given) };
    found.ok_or_else(|| Refusal::with_part(RefusalKind::WrongSecret, part))
}

pub(super) fn header(
    name: &str,
    prefix: &str,
    secrets: &[SecretBytes],
    request: &DeliveryRequest<'_>,
) -> Result<usize, Refusal> {
    let value = required_header(request, name)?;
    let malformed = || Refusal::with_part(RefusalKind::Malformed, name);
    compare(secrets, value.strip_prefix(prefix).ok_or_else(malformed)?.as_bytes(), name)
}

/// The user name is compared like a password, and both are compared always.
pub(super) fn basic(
    user: &str,
    secrets: &[SecretBytes],
    request: &DeliveryRequest<'_>,
) -> Result<usize, Refusal> {
    const NAME: &str = "authorization";
    let malformed = || Refusal::with_part(RefusalKind::Malformed, NAME);
    let value = required_header(request, NAME)?;
    let (scheme, encoded) = value.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let decoded = BASE64.decode(encoded.trim_ascii()).map_err(|_| malformed())?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or_else(malformed)?;
    let (given_user, rest) = decoded.split_at(colon);
    let password = rest.get(1..).unwrap_or_default();
    let is_user = SecretBytes::new(user.into()).equals(given_user);
    let key = compare(secrets, password, NAME)?;
    if is_user { Ok(key) } else { Err(Refusal::with_part(RefusalKind::WrongSecret, NAME)) }
}

pub(super) fn query(
    name: &str,
    secrets: &[SecretBytes],
    request: &DeliveryRequest<'_>,
) -> Result<usize, Refusal> {
    let mut values = request.query_values(name);
    let value = values.next().ok_or_else(|| Refusal::with_part(RefusalKind::Missing, name))?;
    if values.next().is_some() {
        return Err(Refusal::with_part(RefusalKind::Repeated, name));
    }
    compare(secrets, value.as_bytes(), name)
}

/// Bound on the members that are compared with secrets.
const MAX_VALUES: usize = 1000;

/// Every member that the path leads to equals the same secret. There is at least one, and at most
/// [`MAX_VALUES`].
pub(super) fn body_secret(
    path: &BodyPath,
    secrets: &[SecretBytes],
    request: &DeliveryRequest<'_>,
) -> Result<usize, Refusal> {
    let mut result: Option<Result<usize, Refusal>> = None;
    let mut values = 0;
    let is_readable = path.visit(request, &mut |text| {
        values += 1;
        if values > MAX_VALUES {
            result = Some(Err(Refusal::with_part(RefusalKind::Malformed, path.as_str())));
        }
        let missing = || Refusal::with_part(RefusalKind::Missing, path.as_str());
        let found = match &result {
            Some(Err(_)) => return,
            _ => text
                .ok_or_else(missing)
                .and_then(|text| compare(secrets, text.as_bytes(), path.as_str())),
        };
        result = Some(match (result.take(), found) {
            (Some(Ok(before)), Ok(now)) if before != now => {
                Err(Refusal::with_part(RefusalKind::WrongSecret, path.as_str()))
            }
            (_, found) => found,
        });
    });
    if !is_readable {
        return Err(Refusal::with_part(RefusalKind::Malformed, "body"));
    }
    result.unwrap_or_else(|| Err(Refusal::with_part(RefusalKind::Missing, path.as_str())))
}
