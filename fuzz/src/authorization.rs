//! The header `Authorization`.

use hookgate::auth::{AuthError, AuthSettings, Authenticator, Callers, CredentialField};
use hookgate::ids::RequestId;
use hookgate::settings::SettingsReader;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

const CONFIGURATION: &str = r#"
    [auth.jwt]
    algorithms = ["HS256"]
    secrets = ["a secret for tokens of at least 32 bytes"]
"#;

/// No users are loaded, so that a well-formed key is [`AuthError::Unavailable`] and nothing else
/// is.
static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let table = toml::from_str(CONFIGURATION).expect("TOML");
    let mut settings = SettingsReader::new(table, std::iter::empty());
    let auth = AuthSettings::read(&mut settings.section("auth"));
    assert_eq!(settings.into_faults(), []);
    Authenticator::new(auth, Arc::new(Callers::new(Duration::from_secs(1))))
});

/// The shape of a credential decides its kind, and only a signed token with an organization is
/// accepted.
pub fn check(header: &[u8]) {
    let id = RequestId::from_header_or_new(Some(b"a request"));
    let authenticated =
        AUTHENTICATOR.authenticate(Some(CredentialField::Authorization(header)), &id);
    let Some(credential) = credential(header) else {
        assert_eq!(authenticated, Err(AuthError::MissingCredentials));
        return;
    };
    let parts: Vec<&str> = credential.split('.').collect();
    let is_base64url = |char: char| char.is_ascii_alphanumeric() || "-_".contains(char);
    let is_part = |part: &&str| !part.is_empty() && part.chars().all(is_base64url);
    if parts.len() != 3 || !parts.iter().all(is_part) {
        assert_eq!(authenticated, Err(AuthError::StaleIndex), "an API key");
        return;
    }
    match authenticated {
        Ok(caller) => {
            assert!(
                !caller.organization().as_str().is_empty() && !caller.user().as_str().is_empty()
            );
        }
        // Without a header that is a JSON object with `alg` it is an API key.
        Err(AuthError::InvalidToken | AuthError::ExpiredToken | AuthError::StaleIndex) => {}
        Err(error) => panic!("a token is refused as {error:?}"),
    }
}

/// What follows `Bearer` and at least one space.
fn credential(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let rest = text.get(6..).filter(|_| text[..6].eq_ignore_ascii_case("bearer"))?;
    rest.strip_prefix(' ').map(str::trim).filter(|credential| !credential.is_empty())
}
