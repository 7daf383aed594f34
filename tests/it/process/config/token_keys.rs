//! Keys for tokens that verify nothing: `check` and the log name them with their file and the
//! algorithms.

use super::{check, faults, keys};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::process::Command;
use testkit::keys::{KeyPair, jwk_set, octet_jwk};
use testkit::scratch::Scratch;
use testkit::{Config, Hookgate, Redis};

const SECRET: &str = "a-secret-of-more-than-32-bytes-for-these-tests";

/// The warnings of a configuration without faults.
fn warnings(text: &str) -> Vec<String> {
    let (code, out) = check(text, &[]);
    assert_eq!(code, 0, "{out}");
    out.lines().filter_map(|line| line.strip_prefix("  warning: ")).map(str::to_owned).collect()
}

/// Fails unless one warning contains all of these.
#[track_caller]
fn assert_warned(warnings: &[String], words: &[&str]) {
    let says = |warning: &&String| words.iter().all(|word| warning.contains(word));
    assert_eq!(warnings.iter().filter(says).count(), 1, "{words:?} in {warnings:#?}");
}

/// A key that openssl generates.
fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("PEM")
}

/// The public half of a private key in PEM.
fn public(files: &Scratch, private: &str) -> String {
    let file = files.write("private-for-openssl.pem", private);
    openssl(&["pkey", "-pubout", "-in", file.to_str().expect("a path in UTF-8")])
}

fn with_pem(file: &str, algorithms: &str) -> String {
    format!(
        "[auth.jwt]\nissuer = \"i\"\nalgorithms = {algorithms}\npublic_key_files = [{file:?}]\n"
    )
}

#[test]
fn a_key_for_no_configured_algorithm_gives_a_warning() {
    let files = Scratch::new("keys");
    let path = |name: &str, text: &str| files.write(name, text).display().to_string();
    let rsa = path("rsa.pem", &KeyPair::rsa().public_pem);
    let ec = path("ec.pem", &KeyPair::for_algorithm(Algorithm::ES256).public_pem);
    let secret = path("secret", SECRET);

    let found = warnings(&with_pem(&rsa, r#"["HS256"]"#));
    assert_warned(&found, &[&rsa, "RSA key of 2048 bits", "RS256", "PS512", "has HS256"]);
    assert_warned(&found, &["no key for HS256"]);
    let found = warnings(&with_pem(&ec, r#"["ES384", "RS256"]"#));
    assert_warned(&found, &[&ec, "P-256", "for ES256", "has ES384, RS256"]);
    assert_eq!(warnings(&with_pem(&ec, r#"["ES256"]"#)), Vec::<String>::new());

    let text = format!(
        "[auth.jwt]\nalgorithms = [\"RS256\"]\nsecrets = [\"{SECRET}\"]\nsecret_files = [{secret:?}]\n"
    );
    let found = warnings(&text);
    assert_warned(
        &found,
        &["auth.jwt.secrets verifies no token", "HS256, HS384, HS512", "has RS256"],
    );
    assert_warned(&found, &["auth.jwt.secret_files", &secret, "verifies no token", "has RS256"]);

    let keys = [KeyPair::rsa().jwk(Algorithm::RS384, "r"), octet_jwk(SECRET, "HS256", "o")];
    let set = path("jwks.json", &jwk_set(&keys));
    let text = format!("[auth.jwt]\nissuer = \"i\"\njwks_file = {set:?}\n");
    assert_warned(&warnings(&text), &[&set, "entry 1 (kid \"r\")", "for RS384", "has HS256"]);
}

#[test]
fn a_key_on_another_curve_gives_a_warning() {
    let files = Scratch::new("keys");
    for (curve, name) in [("P-521", "P-521"), ("secp256k1", "a curve other")] {
        let curve = format!("ec_paramgen_curve:{curve}");
        let private = openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", &curve]);
        let file = files.write("public.pem", public(&files, &private)).display().to_string();
        let found = warnings(&with_pem(&file, r#"["ES256", "ES384"]"#));
        assert_warned(&found, &[&file, name, "verifies no token", "ES256, ES384"]);
    }
}

#[test]
fn private_and_short_keys_are_faults() {
    let files = Scratch::new("keys");
    let rsa = |bits: &str| {
        openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")])
    };
    let short = rsa("1024");
    let traditional = {
        let file = files.write("rsa.pem", &short);
        openssl(&["rsa", "-traditional", "-in", file.to_str().expect("a path in UTF-8")])
    };
    let [ec, ed] = [Algorithm::ES256, Algorithm::EdDSA].map(KeyPair::for_algorithm);
    let curve = openssl(&["ecparam", "-name", "prime256v1", "-genkey"]);
    let rows = [
        ("rsa", KeyPair::rsa().private_pem, "private key"),
        ("traditional", traditional, "private key"),
        ("ec", ec.private_pem.clone(), "private key"),
        ("ec of openssl", curve, "private key"),
        ("ed", ed.private_pem, "private key"),
        ("both", format!("{}{}", ec.public_pem, ec.private_pem), "private key"),
        ("short", public(&files, &short), "1024 bits"),
        (
            "short next to a valid one",
            format!("{}{}", ec.public_pem, public(&files, &short)),
            "1024 bits",
        ),
        ("another kind of key", openssl(&["genpkey", "-algorithm", "X25519"]), "private key"),
        (
            "no key",
            "-----BEGIN X-----\nAAAA\n-----END X-----\n".to_owned(),
            "EC or Ed25519 public key",
        ),
    ];
    for (what, pem, reason) in rows {
        let file = files.write("key.pem", pem).display().to_string();
        let found = faults(&with_pem(&file, r#"["RS256", "ES256", "EdDSA"]"#));
        assert_eq!(keys(&found), ["auth.jwt.public_key_files"], "{what}");
        let fault = &found["auth.jwt.public_key_files"];
        assert!(fault.contains(reason) && fault.contains(&file), "{what}: {fault}");
    }
}

#[test]
fn blank_secrets_are_faults() {
    let files = Scratch::new("keys");
    for blank in ["", " ", "\t ", "\u{a0}", "\n", " \r\n"] {
        let plain = toml::Value::from(blank);
        let text = format!("[auth.jwt]\nsecrets = [\"{SECRET}\", {plain}]\n");
        assert_eq!(keys(&faults(&text)), ["auth.jwt.secrets"], "{blank:?}");
        let file = files.write("blank", blank).display().to_string();
        let text = format!("[auth.jwt]\nsecret_files = [{file:?}]\n");
        assert_eq!(keys(&faults(&text)), ["auth.jwt.secret_files"], "{blank:?}");
    }
    let (code, out) = check("", &[("HOOKGATE__AUTH__JWT__SECRETS", " ")]);
    assert!(code == 2 && out.contains("auth.jwt.secrets"), "{out}");
}

#[test]
fn entries_left_out_of_a_jwk_set_are_named() {
    let files = Scratch::new("keys");
    let set = |entries: &[Value]| {
        let file = files.write("jwks.json", jwk_set(entries)).display().to_string();
        let text = format!("[auth.jwt]\nissuer = \"i\"\njwks_file = {file:?}\n");
        (file, text)
    };
    let good = octet_jwk(SECRET, "HS256", "good");
    let mut signing = good.clone();
    signing["key_ops"] = json!(["sign"]);
    let mut private = KeyPair::rsa().jwk(Algorithm::RS256, "private");
    private["d"] = json!("AAAA");
    let (file, text) = set(&[good, json!(null), signing.clone(), private]);
    let found = warnings(&text);
    assert_warned(&found, &[&file, "entry 2 is skipped", "not a JWK"]);
    assert_warned(&found, &[&file, "entry 3 (kid \"good\") is skipped", "key_ops"]);
    assert_warned(&found, &[&file, "entry 4 (kid \"private\") is a private key"]);

    let (file, text) = set(&[]);
    assert_warned(&warnings(&text), &[&file, "no keys"]);
    let (_, text) = set(&[json!(null), signing]);
    let found = faults(&text);
    assert_eq!(keys(&found), ["auth.jwt.jwks_file"]);
    assert!(found["auth.jwt.jwks_file"].contains("none of its 2 keys"), "{found:?}");
}

#[test]
fn public_keys_without_conditions_give_a_warning() {
    let files = Scratch::new("keys");
    let pem = files.write("key.pem", KeyPair::for_algorithm(Algorithm::ES256).public_pem);
    let jwks = files.write("jwks.json", jwk_set(&[octet_jwk(SECRET, "HS256", "o")]));
    let words = ["issuer, audience or types"];
    for (key, value) in
        [("public_key_files", format!("[{pem:?}]")), ("jwks_file", format!("{jwks:?}"))]
    {
        let text = format!("[auth.jwt]\nalgorithms = [\"ES256\", \"HS256\"]\n{key} = {value}\n");
        assert_warned(&warnings(&text), &words);
        for condition in ["issuer = \"i\"", "audience = [\"a\"]", "types = [\"at+jwt\"]"] {
            let found = warnings(&format!("{text}{condition}\n"));
            assert!(!found.iter().any(|warning| warning.contains(words[0])), "{found:?}");
        }
    }
    let found = warnings(&format!("[auth.jwt]\nsecrets = [\"{SECRET}\"]\n"));
    assert_eq!(found, Vec::<String>::new(), "a secret needs no condition");
    assert_eq!(keys(&faults("[auth.jwt]\ntypes = [\"\"]\n")), ["auth.jwt.types"]);
}

#[tokio::test]
async fn the_log_contains_the_same_warnings() {
    let files = Scratch::new("keys");
    let redis = Redis::start().await;
    let rsa = files.write("rsa.pem", KeyPair::rsa().public_pem).display().to_string();
    let documents = files.write("workflows.json", "{}").display().to_string();
    let mut config = Config::new();
    config.set("queue.redis", redis.url()).set("triggers.file", documents);
    config.set("auth.jwt.public_key_files", vec![rsa.as_str()]);
    let hookgate = Hookgate::start(config).await;
    let log = hookgate.log();
    let lines = log.lines().filter(|line| line.contains(&rsa) && line.contains("WARN"));
    let lines: Vec<&str> = lines.filter(|line| line.contains("verifies no token")).collect();
    assert!(lines.len() == 1 && lines[0].contains("RS256"), "{log}");
}
