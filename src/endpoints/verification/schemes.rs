//! Reads the rule of each scheme from its members.

use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::keys::Encoding;
use crate::endpoints::verification::members::{Malformed, Members, header_name};
use crate::endpoints::verification::rules::{
    Algorithm, DeliveryIdRule, Hash, JwtRule, Rule, SignatureHeaders, SignaturePlace, SignedRule,
};
use crate::endpoints::verification::template::{Part, Template};
use crate::endpoints::verification::time::{TimeFormat, TimePlace, TimeRule};
use crate::endpoints::verification::url_form::{URL_FORMS, UrlForm};
use std::time::Duration;

/// Schemes that are described by their members.
pub(super) const SCHEMES: [&str; 9] =
    ["hmac", "ed25519", "ecdsa-p256", "jwt", "header", "basic", "query", "bodySecret", "none"];

const TOLERANCE: Duration = Duration::from_secs(300);

const HASHES: [(&str, Hash); 3] =
    [("sha1", Hash::Sha1), ("sha256", Hash::Sha256), ("sha512", Hash::Sha512)];

const ENCODINGS: [(&str, Encoding); 2] = [("hex", Encoding::Hex), ("base64", Encoding::Base64)];

const SECRET_ENCODINGS: [(&str, Encoding); 3] =
    [("text", Encoding::Text), ("hex", Encoding::Hex), ("base64", Encoding::Base64)];

const TIME_FORMATS: [(&str, TimeFormat); 3] = [
    ("seconds", TimeFormat::Seconds),
    ("milliseconds", TimeFormat::Milliseconds),
    ("RFC 3339", TimeFormat::Rfc3339),
];

/// Reads the rule of a scheme. `None` if there is no such scheme.
pub(super) fn read(
    scheme: &str,
    members: &mut Members,
    delivery_id: &DeliveryIdRule,
) -> Option<Result<Rule, Malformed>> {
    let rule = match scheme {
        "hmac" => hash(members)
            .map(Algorithm::Hmac)
            .and_then(|algorithm| signed(algorithm, members, delivery_id)),
        "ed25519" => signed(Algorithm::Ed25519, members, delivery_id),
        "ecdsa-p256" => signed(Algorithm::EcdsaP256, members, delivery_id),
        "jwt" => jwt(members),
        "header" => header(members),
        "basic" => members.required("user").and_then(basic),
        "query" => members.required("name").map(|name| Rule::Query { name }),
        "bodySecret" => required_path(members, "path").map(|path| Rule::BodySecret { path }),
        "none" => Ok(Rule::None),
        _ => return None,
    };
    Some(rule)
}

/// How the secrets of a scheme are written.
pub(super) fn secret_encoding(scheme: &str, members: &mut Members) -> Result<Encoding, Malformed> {
    let encoding = match scheme {
        "hmac" | "jwt" => members.choice("secretEncoding", &SECRET_ENCODINGS)?,
        _ => None,
    };
    Ok(encoding.unwrap_or(Encoding::Text))
}

fn basic(user: String) -> Result<Rule, Malformed> {
    if user.contains(':') {
        return Err(Malformed::new("user", "has a colon, which ends a user name"));
    }
    Ok(Rule::Basic { user })
}

fn header(members: &mut Members) -> Result<Rule, Malformed> {
    let name = members.header("name")?.ok_or_else(|| Malformed::new("name", "is missing"))?;
    Ok(Rule::Header { name, prefix: members.text("prefix")?.unwrap_or_default() })
}

fn jwt(members: &mut Members) -> Result<Rule, Malformed> {
    let hash = hash(members)?;
    if hash == Hash::Sha1 {
        return Err(Malformed::new("algorithm", "is none of sha256, sha512"));
    }
    let header = members.header("header")?.unwrap_or_else(|| "authorization".to_owned());
    let prefix = members.text("prefix")?.unwrap_or_default();
    let tolerance = members.duration("tolerance")?.unwrap_or(TOLERANCE);
    let requires_exp = members.boolean("requireExp")?.unwrap_or(true);
    let audience = members.text("audience")?;
    if audience.as_ref().is_some_and(|audience| audience.matches("{url}").count() > 1) {
        return Err(Malformed::new("audience", "contains {url} more than once"));
    }
    Ok(Rule::Jwt(JwtRule { header, prefix, hash, tolerance, requires_exp, audience }))
}

fn hash(members: &mut Members) -> Result<Hash, Malformed> {
    Ok(members.choice("algorithm", &HASHES)?.unwrap_or(Hash::Sha256))
}

fn signed(
    algorithm: Algorithm,
    members: &mut Members,
    delivery_id: &DeliveryIdRule,
) -> Result<Rule, Malformed> {
    let template = members.text("signed")?.unwrap_or_else(|| "{body}".to_owned());
    let rule = SignedRule {
        algorithm,
        signed: Template::parse(&template).map_err(|reason| Malformed::new("signed", reason))?,
        url_forms: url_forms(members)?,
        body_digest_query: members.text("bodyDigestQuery")?,
        place: place(members)?,
        encoding: members.choice("encoding", &ENCODINGS)?.unwrap_or(Encoding::Hex),
        time: time(members)?,
        id_headers: headers(members, "idHeader")?,
    };
    check_consistent(&rule, delivery_id)?;
    Ok(Rule::Signed(rule))
}

/// Reports what is named and not signed, and what is signed and not named.
fn check_consistent(rule: &SignedRule, delivery_id: &DeliveryIdRule) -> Result<(), Malformed> {
    let contains = |part: &Part| rule.signed.contains(part);
    let has_id = !rule.id_headers.is_empty()
        || matches!(delivery_id, DeliveryIdRule::Header(_) | DeliveryIdRule::Body(_));
    if contains(&Part::Id) && !has_id {
        return Err(Malformed::new("signed", "has {id}, which needs idHeader or deliveryId"));
    }
    if matches!(delivery_id, DeliveryIdRule::Signed) && rule.id_headers.is_empty() {
        return Err(Malformed::new("idHeader", "is missing"));
    }
    if rule.body_digest_query.is_some() && !contains(&Part::Url) {
        return Err(Malformed::new("bodyDigestQuery", "is not signed: signed has no {url}"));
    }
    if rule.url_forms != [UrlForm::AsSent] && !contains(&Part::Url) {
        return Err(Malformed::new("urlForms", "has no effect because `signed` has no {url}"));
    }
    check_time(rule)?;
    let SignaturePlace::Headers(headers) = &rule.place else { return Ok(()) };
    let of_time = match rule.time.as_ref().map(|time| &time.place) {
        Some(TimePlace::Headers(names)) => names.len(),
        _ => 1,
    };
    for (member, count) in [("timestampHeader", of_time), ("idHeader", rule.id_headers.len())] {
        if count > 1 && count != headers.names.len() {
            return Err(Malformed::new(member, "does not have as many names as headers"));
        }
    }
    Ok(())
}

/// A time that is not signed proves nothing.
fn check_time(rule: &SignedRule) -> Result<(), Malformed> {
    let is_signed = rule.signed.contains(&Part::Timestamp);
    let Some(time) = &rule.time else {
        let reason = "has {timestamp}, which needs timestampHeader, timestampItem or timestampBody";
        return if is_signed { Err(Malformed::new("signed", reason)) } else { Ok(()) };
    };
    let (member, is_signed) = match &time.place {
        TimePlace::Headers(_) => ("timestampHeader", is_signed),
        TimePlace::Item(_) => ("timestampItem", is_signed),
        TimePlace::Body(_) => ("timestampBody", is_signed || rule.signed.contains(&Part::Body)),
    };
    if !is_signed {
        return Err(Malformed::new(member, "is not signed: signed has no {timestamp}"));
    }
    let has_items =
        matches!(&rule.place, SignaturePlace::Headers(headers) if headers.item.is_some());
    if matches!(time.place, TimePlace::Item(_)) && !has_items {
        return Err(Malformed::new("timestampItem", "needs signatureItem"));
    }
    Ok(())
}

fn place(members: &mut Members) -> Result<SignaturePlace, Malformed> {
    let names = members.one_or_many("header", "headers")?;
    let path = optional_path(members, "signatureBody")?;
    match (names, path) {
        (None, None) => {
            Err(Malformed::new("header", "is missing: nothing says where the signature is"))
        }
        (Some(_), Some(_)) => Err(Malformed::new("signatureBody", "and header are both given")),
        (None, Some(path)) => Ok(SignaturePlace::Body(path)),
        (Some(names), None) => {
            let item = members.text("signatureItem")?;
            let separator = members.text("separator")?;
            let separator = separator.or_else(|| item.as_ref().map(|_| ",".to_owned()));
            Ok(SignaturePlace::Headers(SignatureHeaders {
                names: names
                    .iter()
                    .map(|name| header_name("header", name))
                    .collect::<Result<_, _>>()?,
                item,
                separator,
                prefix: members.text("prefix")?.unwrap_or_default(),
            }))
        }
    }
}

fn time(members: &mut Members) -> Result<Option<TimeRule>, Malformed> {
    let names = headers(members, "timestampHeader")?;
    let header = (!names.is_empty()).then_some(TimePlace::Headers(names));
    let item = members.text("timestampItem")?.map(TimePlace::Item);
    let body = optional_path(members, "timestampBody")?.map(TimePlace::Body);
    let mut places = [header, item, body].into_iter().flatten();
    let Some(place) = places.next() else {
        let unused = ["timestampFormat", "tolerance"].into_iter().find(|name| members.has(name));
        let needs = "needs timestampHeader, timestampItem or timestampBody";
        return unused.map_or(Ok(None), |name| Err(Malformed::new(name, needs)));
    };
    if places.next().is_some() {
        return Err(Malformed::new("timestampHeader", "is one of several places of the time"));
    }
    let format = members.choice("timestampFormat", &TIME_FORMATS)?.unwrap_or(TimeFormat::Seconds);
    let tolerance = members.duration("tolerance")?.unwrap_or(TOLERANCE);
    Ok(Some(TimeRule { place, format, tolerance }))
}

fn url_forms(members: &mut Members) -> Result<Vec<UrlForm>, Malformed> {
    let Some(names) = members.list("urlForms")? else { return Ok(vec![UrlForm::AsSent]) };
    let form = |name: &String| URL_FORMS.into_iter().find(|(word, _)| word == name);
    let forms: Option<Vec<UrlForm>> =
        names.iter().map(|name| form(name).map(|(_, form)| form)).collect();
    let words = URL_FORMS.map(|(word, _)| word).join(", ");
    let mut forms = forms.ok_or_else(|| {
        Malformed::new("urlForms", format!("contains an unknown form; valid: {words}"))
    })?;
    // A signature is computed once for each form.
    forms.sort_unstable();
    forms.dedup();
    Ok(forms)
}

/// Names of header fields, or an empty list.
fn headers(members: &mut Members, member: &str) -> Result<Vec<String>, Malformed> {
    let names = members.list(member)?.unwrap_or_default();
    names.iter().map(|name| header_name(member, name)).collect()
}

pub(super) fn optional_path(
    members: &mut Members,
    member: &str,
) -> Result<Option<BodyPath>, Malformed> {
    let path = members.text(member)?.map(|text| BodyPath::parse(&text));
    path.transpose().map_err(|reason| Malformed::new(member, reason))
}

fn required_path(members: &mut Members, member: &str) -> Result<BodyPath, Malformed> {
    optional_path(members, member)?.ok_or_else(|| Malformed::new(member, "is missing"))
}
