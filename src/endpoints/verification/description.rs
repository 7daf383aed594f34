//! Reads a verification from its members.

use crate::endpoints::verification::body_path::BodyPath;
use crate::endpoints::verification::identity::Digester;
use crate::endpoints::verification::keys::{self, Curve, Keys, PublicKey, SecretBytes};
use crate::endpoints::verification::members::{Malformed, Member, Members, header_name, not_read};
use crate::endpoints::verification::model::{Status, Verification};
use crate::endpoints::verification::preset::{Condition, DeliveryId, Preset, Value};
use crate::endpoints::verification::presets;
use crate::endpoints::verification::rules::{Algorithm, DeliveryIdRule, Rule};
use crate::endpoints::verification::schemes::{self, SCHEMES};
use crate::settings::{Networks, nearest};

/// Bound on the secrets or public keys of a verification.
const MAX_KEYS: usize = 4;

/// What can be given beside a preset.
const BESIDE_PRESET: [&str; 9] = [
    "secret",
    "secrets",
    "publicKey",
    "publicKeys",
    "tolerance",
    "deliveryId",
    "verifyToken",
    "allowedAddresses",
    "status",
];

/// Members that do not decide which deliveries are the same.
const NOT_OF_ORIGIN: [&str; 5] =
    ["tolerance", "requireExp", "allowedAddresses", "verifyToken", "status"];

/// Reads a verification. Every member has to be understood.
pub(super) fn read(mut members: Members) -> Result<Verification, Malformed> {
    let given = members.required("scheme")?;
    let (name, preset) = find(&given)?;
    let scheme = preset.map_or(name, |preset| preset.scheme);
    if let Some(preset) = preset {
        apply(preset, &mut members)?;
    }
    let secrets = members.one_or_many("secret", "secrets")?;
    let public = members.one_or_many("publicKey", "publicKeys")?;
    let (mut origin, mut identity) = (Digester::new(), Digester::new());
    origin.add(name.as_bytes());
    origin.add_members(&members, &NOT_OF_ORIGIN);
    identity.add(name.as_bytes());
    identity.add_members(&members, &[]);
    let delivery_id = delivery_id(&mut members, preset)?;
    let encoding = schemes::secret_encoding(scheme, &mut members)?;
    let rule = schemes::read(scheme, &mut members, &delivery_id);
    let rule = rule.ok_or_else(|| Malformed::new("scheme", "is unknown"))??;
    let prefix = preset.map_or("", |preset| preset.secret_prefix);
    let secrets = secrets.map(|texts| keys::secrets(&texts, prefix, encoding)).transpose()?;
    let keys = keys_of(name, &rule, secrets, public)?;
    let allowed = allowed(&mut members)?;
    let verify_token = verify_token(&mut members, preset)?;
    let status = status(&mut members)?;
    members.finish(name)?;
    identity.add_keys(&keys);
    let identity = identity.finish();
    Ok(Verification {
        scheme: name,
        preset,
        rule,
        keys,
        delivery_id,
        allowed,
        verify_token,
        status,
        identity,
        origin: origin.finish(),
    })
}

/// Finds a preset or a scheme.
fn find(given: &str) -> Result<(&'static str, Option<&'static Preset>), Malformed> {
    if let Some(preset) = presets::find(given) {
        return Ok((preset.name, Some(preset)));
    }
    if let Some(scheme) = SCHEMES.into_iter().find(|scheme| *scheme == given) {
        return Ok((scheme, None));
    }
    let names = presets::PRESETS.iter().map(|preset| preset.name).chain(SCHEMES);
    let suggestion = nearest(given, names).map(|meant| format!("; did you mean {meant}?"));
    let suggestion = suggestion.unwrap_or_default();
    Err(Malformed::new("scheme", format!("is neither a preset nor a scheme{suggestion}")))
}

/// Adds the members of a preset. What a preset says cannot be said again.
fn apply(preset: &'static Preset, members: &mut Members) -> Result<(), Malformed> {
    if let Some(name) = members.names().find(|name| !BESIDE_PRESET.contains(name)) {
        return Err(not_read(name, preset.name));
    }
    for (name, value) in preset.members {
        let text = |text: &&str| Member::Text((*text).to_owned());
        let member = match value {
            Value::Text(value) => text(value),
            Value::List(values) => Member::List(values.iter().map(text).collect()),
        };
        members.add(name, member);
    }
    Ok(())
}

fn keys_of(
    scheme: &str,
    rule: &Rule,
    secrets: Option<Vec<SecretBytes>>,
    public: Option<Vec<String>>,
) -> Result<Keys, Malformed> {
    let (takes_secrets, curve) = match rule {
        Rule::None => (false, None),
        Rule::Signed(signed) => match signed.algorithm {
            Algorithm::Hmac(_) => (true, None),
            Algorithm::Ed25519 => (false, Some(Curve::Ed25519)),
            Algorithm::EcdsaP256 => (false, Some(Curve::P256)),
        },
        _ => (true, None),
    };
    let takes_public = curve.is_some() || matches!(rule, Rule::Jwt(_));
    match (secrets, public) {
        (Some(_), _) if !takes_secrets => Err(not_read("secret", scheme)),
        (_, Some(_)) if !takes_public => Err(not_read("publicKey", scheme)),
        (Some(_), Some(_)) => Err(Malformed::new("publicKey", "and secret are both given")),
        (Some(secrets), None) => bounded("secrets", &secrets).map(|()| Keys::Secrets(secrets)),
        (None, Some(texts)) => public_keys(&texts, curve).map(Keys::Public),
        (None, None) if takes_secrets => Err(Malformed::new("secret", "is missing")),
        (None, None) if takes_public => Err(Malformed::new("publicKey", "is missing")),
        (None, None) => Ok(Keys::None),
    }
}

fn public_keys(texts: &[String], curve: Option<Curve>) -> Result<Vec<PublicKey>, Malformed> {
    bounded("publicKeys", texts)?;
    let read = |text: &String| {
        let key = PublicKey::parse(text).map_err(|reason| Malformed::new("publicKey", reason))?;
        if curve.is_some_and(|curve| curve != key.curve) {
            return Err(Malformed::new("publicKey", "is of another algorithm than the scheme"));
        }
        Ok(key)
    };
    texts.iter().map(read).collect()
}

fn bounded<T>(member: &str, keys: &[T]) -> Result<(), Malformed> {
    let reason = || format!("has more than {MAX_KEYS} entries");
    if keys.len() > MAX_KEYS { Err(Malformed::new(member, reason())) } else { Ok(()) }
}

fn delivery_id(
    members: &mut Members,
    preset: Option<&'static Preset>,
) -> Result<DeliveryIdRule, Malformed> {
    let wrong = || {
        let forms = "is neither {\"header\": name} nor {\"body\": path} nor false";
        Malformed::new("deliveryId", forms)
    };
    match members.take("deliveryId") {
        None => Ok(preset.map_or_else(|| default_id(members), |preset| id_of(preset.delivery_id))),
        Some(Member::Boolean(false)) => Ok(DeliveryIdRule::None),
        Some(Member::Table(table)) => {
            let mut table = Members::new(table);
            let header = table.text("header").map_err(|_| wrong())?;
            let body = table.text("body").map_err(|_| wrong())?;
            match (header, body, table.names().next()) {
                (Some(name), None, None) => {
                    header_name("deliveryId", &name).map(DeliveryIdRule::Header)
                }
                (None, Some(path), None) => BodyPath::parse(&path)
                    .map(DeliveryIdRule::Body)
                    .map_err(|reason| Malformed::new("deliveryId", reason)),
                _ => Err(wrong()),
            }
        }
        Some(_) => Err(wrong()),
    }
}

fn default_id(members: &Members) -> DeliveryIdRule {
    if members.has("idHeader") { DeliveryIdRule::Signed } else { DeliveryIdRule::None }
}

fn id_of(id: DeliveryId) -> DeliveryIdRule {
    match id {
        DeliveryId::None => DeliveryIdRule::None,
        DeliveryId::Signed => DeliveryIdRule::Signed,
        DeliveryId::Header(name) => DeliveryIdRule::Header(name.to_ascii_lowercase()),
        DeliveryId::Body(path) => {
            BodyPath::parse(path).map_or(DeliveryIdRule::None, DeliveryIdRule::Body)
        }
    }
}

fn allowed(members: &mut Members) -> Result<Option<Networks>, Malformed> {
    let texts = members.list("allowedAddresses")?;
    let networks = texts.map(|texts| Networks::parse(&texts)).transpose();
    networks.map_err(|reason| Malformed::new("allowedAddresses", reason))
}

fn verify_token(
    members: &mut Members,
    preset: Option<&'static Preset>,
) -> Result<Option<SecretBytes>, Malformed> {
    let handshakes = preset.map_or(&[][..], |preset| preset.handshakes);
    let mut conditions = handshakes.iter().flat_map(|handshake| handshake.conditions);
    if !conditions.any(|condition| matches!(condition, Condition::QueryIsToken(_))) {
        return Ok(None);
    }
    Ok(members.text("verifyToken")?.map(|token| SecretBytes::new(token.into_bytes())))
}

fn status(members: &mut Members) -> Result<Status, Malformed> {
    match members.take("status") {
        None | Some(Member::Number(200)) => Ok(Status::Ok),
        Some(Member::Number(202)) => Ok(Status::Accepted),
        Some(Member::Number(204)) => Ok(Status::NoContent),
        Some(_) => Err(Malformed::new("status", "is none of 200, 202, 204")),
    }
}
