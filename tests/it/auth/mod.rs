//! Authentication: every kind of credential that is accepted, its organization and user, and what
//! is refused.

mod api_keys;

mod attacks;

mod credential_fields;

mod fetched_key_sets;

mod ids;

mod key_sets;

mod refusals_in_the_log;

mod remembered;

mod unasked;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use testkit::config::SECRET;
use testkit::documents::user;
use testkit::keys::{KeyPair, KeyRing, hmac, jwk_set, octet_jwk};
use testkit::tokens::{ALGORITHMS, claims, forge, now, sign, sign_with_id, token};
use testkit::wait::until;
use testkit::{App, Documents, Reply};

const OTHER_SECRET: &str = "another-secret-of-64-characters-which-is-known-to-the-same-tests";

#[tokio::test]
async fn every_algorithm_is_verified_with_secret_or_pem() {
    let keys = KeyRing::new();
    let build = App::build();
    let files: Vec<String> = keys
        .pairs()
        .map(|(name, pair)| build.file(&format!("{name}.pem"), &pair.public_pem))
        .collect();
    let app = build
        .config(|config| {
            config.set("auth.jwt.algorithms", names(&ALGORITHMS));
            config.set("auth.jwt.public_key_files", files);
        })
        .start()
        .await;

    let strangers = KeyRing::new();
    for algorithm in ALGORITHMS {
        let good = sign(&claims("org_a", "u"), algorithm, &keys.signing_key(algorithm, SECRET));
        assert_accepted(&send(&app, &good).await, &algorithm);
        let bad =
            sign(&claims("org_a", "u"), algorithm, &strangers.signing_key(algorithm, OTHER_SECRET));
        assert_refused(&send(&app, &bad).await, "invalid_token", &("stranger", algorithm));
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn every_algorithm_is_verified_with_a_jwk_set() {
    let keys = KeyRing::new();
    let build = App::build();
    let set = ALGORITHMS.map(|algorithm| keys.jwk(algorithm, SECRET, &name(algorithm)));
    let file = build.file("jwks.json", jwk_set(&set));
    let app = build
        .config(|config| {
            config.remove("auth.jwt.secrets").set("auth.jwt.jwks_file", file);
            config.set("auth.jwt.algorithms", names(&ALGORITHMS));
        })
        .start()
        .await;

    for algorithm in ALGORITHMS {
        let (claims, key) = (claims("org_a", "u"), keys.signing_key(algorithm, SECRET));
        let good = sign_with_id(&claims, algorithm, &key, &name(algorithm));
        assert_accepted(&send(&app, &good).await, &algorithm);
        let other_id = if algorithm == Algorithm::HS256 { "HS384" } else { "HS256" };
        for id in [other_id, "nobody"] {
            let bad = sign_with_id(&claims, algorithm, &key, id);
            assert_refused(&send(&app, &bad).await, "invalid_token", &(id, algorithm));
        }
    }
}

#[tokio::test]
async fn a_jwk_set_is_followed() {
    let build = App::build();
    let file = build.file("jwks.json", jwk_set(&[octet_jwk(SECRET, "HS256", "old")]));
    let path = file.clone();
    let old = sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &hmac(SECRET), "old");
    let new = sign_with_id(&claims("org_a", "u"), Algorithm::HS256, &hmac(OTHER_SECRET), "new");
    let app = build
        .config(|config| {
            config.remove("auth.jwt.secrets").set("auth.jwt.jwks_file", file);
        })
        .start()
        .await;
    assert_accepted(&send(&app, &old).await, &"old");
    assert_refused(&send(&app, &new).await, "invalid_token", &"new");

    let replace = |text: &str| {
        let new = format!("{path}.new");
        std::fs::write(&new, text).expect("the test's own file");
        std::fs::rename(new, &path).expect("the test's own file");
    };
    replace("{");
    until("the log reports the broken file", async || {
        app.hookgate.log().contains("JWK set is unreadable")
    })
    .await;
    assert_accepted(&send(&app, &old).await, &"old, while the file is broken");

    replace(&jwk_set(&[octet_jwk(OTHER_SECRET, "HS256", "new")]));
    until("the new key verifies", async || send(&app, &new).await.status == 202).await;
    assert_refused(&send(&app, &old).await, "invalid_token", &"old");
}

#[tokio::test]
async fn every_secret_verifies_from_the_configuration_and_from_files() {
    let build = App::build();
    let file = build.file("secret", "from-a-file-0123456789abcdefghijklmnopqrstuvwxyz\n");
    let app = build
        .config(|config| {
            config.set("auth.jwt.secrets", vec![SECRET, OTHER_SECRET]);
            config.set("auth.jwt.secret_files", vec![file]);
        })
        .start()
        .await;
    for secret in [SECRET, OTHER_SECRET, "from-a-file-0123456789abcdefghijklmnopqrstuvwxyz"] {
        let good = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret));
        assert_accepted(&send(&app, &good).await, &secret);
    }
    let bad = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac("not-a-secret-of-this-service"));
    assert_refused(&send(&app, &bad).await, "invalid_token", &"another secret");
}

#[tokio::test]
async fn a_token_is_verified_only_by_configured_algorithms() {
    let pair = KeyPair::rsa();
    let build = App::build();
    let file = build.file("rsa.pem", &pair.public_pem);
    let app = build
        .config(|config| {
            config.set("auth.jwt.algorithms", vec!["RS256", "HS256"]);
            config.set("auth.jwt.public_key_files", vec![file]);
        })
        .start()
        .await;
    let claims = claims("org_a", "u");
    let rsa = |algorithm| sign(&claims, algorithm, &pair.encoding_key(algorithm));
    assert_accepted(&send(&app, &rsa(Algorithm::RS256)).await, &"RS256");

    let good = token(&claims);
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let public = pair.public_pem.as_str();
    let bad = [
        ("none", forge(&json!({ "alg": "none", "typ": "JWT" }), &claims, b"x")),
        ("None", forge(&json!({ "alg": "None" }), &claims, b"x")),
        ("alg of a wrong type", forge(&json!({ "alg": ["HS256"] }), &claims, b"x")),
        ("unknown alg", forge(&json!({ "alg": "HS257" }), &claims, b"x")),
        ("confusion", sign(&claims, Algorithm::HS256, &hmac(public))),
        ("confusion, trimmed", sign(&claims, Algorithm::HS256, &hmac(public.trim()))),
        ("HS384", sign(&claims, Algorithm::HS384, &hmac(SECRET))),
        ("HS512", sign(&claims, Algorithm::HS512, &hmac(SECRET))),
        ("RS384", rsa(Algorithm::RS384)),
        ("PS256", rsa(Algorithm::PS256)),
        ("signature of another token", format!("{}.{signature}", swap_claims(signed))),
        ("a shorter signature", good[..good.len() - 4].to_owned()),
        ("claims are no object", forge(&json!({ "alg": "HS256" }), &json!("u"), b"x")),
    ];
    for (what, bad) in bad {
        assert_refused(&send(&app, &bad).await, "invalid_token", &what);
    }
    // Without a signature it does not have the three parts of a token; without alg it does not have
    // a token's header.
    let unsigned = forge(&json!({ "alg": "none" }), &claims, b"");
    let without_alg = forge(&json!({ "typ": "JWT" }), &claims, b"x");
    for key in [unsigned, without_alg] {
        assert_refused(&send(&app, &key).await, "invalid_api_key", &key);
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_times_in_a_token_are_checked() {
    let app = App::with(|config| {
        config.set("auth.jwt.leeway", "10m");
    })
    .await;
    let (past, future) = (now() - 7200, now() + 7200);
    let accepted = [
        ("nbf passed", json!({ "nbf": past })),
        ("expired within the leeway", json!({ "exp": now() - 60 })),
        ("nbf within the leeway", json!({ "nbf": now() + 60 })),
        ("iat is not checked", json!({ "iat": future })),
    ];
    for (what, change) in accepted {
        assert_accepted(&send(&app, &changed(&change)).await, &what);
    }
    let refused = [
        ("expired", json!({ "exp": past }), "expired_token"),
        ("exp 0", json!({ "exp": 0 }), "expired_token"),
        ("nbf not reached", json!({ "nbf": future }), "expired_token"),
        ("no exp", json!({ "exp": null }), "invalid_token"),
        ("exp is a string", json!({ "exp": future.to_string() }), "invalid_token"),
        ("exp a flag", json!({ "exp": true }), "invalid_token"),
        ("exp a list", json!({ "exp": [future] }), "invalid_token"),
        ("nbf is a string", json!({ "nbf": "soon" }), "invalid_token"),
    ];
    for (what, change, code) in refused {
        assert_refused(&send(&app, &changed(&change)).await, code, &what);
    }
    let mut without = claims("org_a", "u");
    without.as_object_mut().expect("an object").remove("exp");
    assert_refused(&send(&app, &token(&without)).await, "invalid_token", &"exp absent");
}

#[tokio::test]
async fn a_configured_issuer_and_audience_are_required() {
    let app = App::with(|config| {
        config.set("auth.jwt.issuer", "https://id");
        config.set("auth.jwt.audience", vec!["one", "two"]);
    })
    .await;
    let good = json!({ "iss": "https://id", "aud": "one" });
    for aud in [json!("one"), json!("two"), json!(["other", "two"])] {
        assert_accepted(&send(&app, &changed(&merged(&good, &json!({ "aud": aud })))).await, &aud);
    }
    let wrong = ["", "https://id/", "three", "ONE", "on"].map(Value::from);
    let types = [json!(null), json!(1), json!(true), json!({ "one": 1 }), json!([]), json!([1])];
    for value in wrong.into_iter().chain(types) {
        for claim in ["iss", "aud"] {
            let bad = changed(&merged(&good, &json!({ claim: value })));
            assert_refused(&send(&app, &bad).await, "invalid_token", &(claim, &value));
        }
    }
    for present in ["iss", "aud"] {
        let bad = changed(&json!({ present: good[present] }));
        assert_refused(&send(&app, &bad).await, "invalid_token", &("only", present));
    }
}

#[tokio::test]
async fn a_configured_type_is_required() {
    let app = App::with(|config| {
        config.set("auth.jwt.types", vec!["at+jwt", "application/hook+jwt"]);
    })
    .await;
    let of = |header: &Value| {
        let header = merged(&json!({ "alg": "HS256" }), header);
        attacks::signed(&header, &claims("org_a", "u").to_string(), &hmac(SECRET))
    };
    for kind in ["at+jwt", "AT+JWT", "application/at+jwt", "hook+jwt"] {
        assert_accepted(&send(&app, &of(&json!({ "typ": kind }))).await, &kind);
    }
    for header in [json!({}), json!({ "typ": "JWT" }), json!({ "typ": null }), json!({ "typ": 1 })]
    {
        assert_refused(&send(&app, &of(&header)).await, "invalid_token", &header);
    }
    // The output of `hookgate token` is accepted.
    let config = app.hookgate.config.to_string();
    let files = testkit::scratch::Scratch::new("types");
    let file = files.write("hookgate.toml", config);
    let minted = testkit::hookgate::command(&["token", "--organization", "org_a", "--user", "u"])
        .arg("--config")
        .arg(file)
        .output()
        .expect("the command runs");
    let minted = String::from_utf8(minted.stdout).expect("a string");
    assert_accepted(&send(&app, minted.trim()).await, &"minted");
}

#[tokio::test]
async fn issuer_and_audience_are_ignored_unless_configured() {
    let app = App::start().await;
    for aud in [json!("anything"), json!(["a", "b"])] {
        let good = changed(&json!({ "aud": aud, "iss": "https://anybody" }));
        assert_accepted(&send(&app, &good).await, &aud);
    }
}

#[tokio::test]
async fn a_token_without_an_organization_uses_that_of_its_user() {
    let mut documents = Documents::two_organizations();
    documents.users.push(user("42", "org_b", ""));
    let app = App::build().documents(documents).start().await;

    let rows = [
        (json!({ "organizationId": "org_b", "sub": "stranger" }), ("org_b", "stranger")),
        (json!({ "organizationId": "org_b", "sub": "user_1" }), ("org_b", "user_1")),
        (json!({ "sub": "user_1" }), ("org_a", "user_1")),
        (json!({ "sub": "user_b" }), ("org_b", "user_b")),
        (json!({ "sub": 42 }), ("org_b", "42")),
        (json!({ "sub": u64::MAX, "organizationId": "org_a" }), ("org_a", "18446744073709551615")),
        (json!({ "sub": -7, "organizationId": "org_a" }), ("org_a", "-7")),
        (json!({ "id": "user_b", "userId": "user_1", "sub": "user_1" }), ("org_b", "user_b")),
        (json!({ "userId": "user_b", "sub": "user_1" }), ("org_b", "user_b")),
        (json!({ "sub": "user_1", "userId": "user_b", "id": 42 }), ("org_b", "42")),
    ];
    for (claims, (organization, user)) in rows {
        let identity = identity_of(&app, &with_exp(&claims)).await;
        assert_eq!(identity, (organization.to_owned(), user.to_owned()), "{claims}");
    }
    let refused = [
        json!({ "sub": "stranger" }),
        json!({ "organizationId": "org_a" }),
        json!({ "sub": "", "organizationId": "org_a" }),
        json!({ "sub": true, "organizationId": "org_a" }),
        json!({ "sub": 1.5, "organizationId": "org_a" }),
        json!({ "sub": ["user_1"], "organizationId": "org_a" }),
        json!({ "id": {}, "sub": "user_1", "organizationId": "org_a" }),
        json!({ "id": "stranger", "sub": "user_1" }),
        json!({ "sub": "user_1", "organizationId": "" }),
        json!({ "sub": "user_1", "organizationId": ["org_a"] }),
        json!({ "sub": "user_1", "organizationId": true }),
    ];
    for claims in refused {
        assert_refused(&send(&app, &with_exp(&claims)).await, "invalid_token", &claims);
    }
    app.assert_accounting().await;
}

#[tokio::test]
async fn the_claim_names_are_configurable() {
    let app = App::with(|config| {
        config.set("auth.jwt.user_claims", vec!["https://id/user"]);
        config.set("auth.jwt.organization_claim", "tenant");
    })
    .await;
    let good = with_exp(&json!({ "https://id/user": "u", "tenant": "org_b" }));
    assert_eq!(identity_of(&app, &good).await, ("org_b".to_owned(), "u".to_owned()));
    let bad = with_exp(&json!({ "sub": "user_1", "organizationId": "org_a" }));
    assert_refused(&send(&app, &bad).await, "invalid_token", &"the usual names");
}

#[tokio::test]
async fn claims_can_be_dotted_paths() {
    let app = App::with(|config| {
        config.set("auth.jwt.user_claims", vec!["user.id", "https://id.example/claims.user"]);
        config.set("auth.jwt.organization_claim", "org.id");
    })
    .await;
    let rows = [
        (json!({ "user": { "id": "u" }, "org": { "id": "org_b" } }), ("org_b", "u")),
        (json!({ "user": { "id": 7 }, "org": { "id": "org_b", "id2": 1 } }), ("org_b", "7")),
        // A claim of exactly that name goes first.
        (
            json!({ "user.id": "v", "user": { "id": "u" }, "org.id": "org_a", "org": { "id": "org_b" } }),
            ("org_a", "v"),
        ),
        (
            json!({ "user.id": null, "user": { "id": "u" }, "org": { "id": "org_a" } }),
            ("org_a", "u"),
        ),
        (
            json!({ "https://id.example/claims": { "user": "w" }, "org": { "id": "org_a" } }),
            ("org_a", "w"),
        ),
        // Without an organization, that of the user is looked up.
        (json!({ "user": { "id": "user_b" }, "org": {} }), ("org_b", "user_b")),
        (json!({ "user": { "id": "user_b" }, "org": "org_a" }), ("org_b", "user_b")),
    ];
    for (claims, (organization, user)) in rows {
        let identity = identity_of(&app, &with_exp(&claims)).await;
        assert_eq!(identity, (organization.to_owned(), user.to_owned()), "{claims}");
    }
    let refused = [
        json!({ "user": { "id": { "id": "u" } }, "org": { "id": "org_a" } }),
        json!({ "user": "u", "org": { "id": "org_a" } }),
        json!({ "user": { "id": "u" }, "org": { "id": ["org_a"] } }),
        json!({ "user": { "id": "u" }, "org.id": false, "org": { "id": "org_a" } }),
        json!({ "sub": "user_1", "organizationId": "org_a" }),
    ];
    for claims in refused {
        assert_refused(&send(&app, &with_exp(&claims)).await, "invalid_token", &claims);
    }
    // The output of `hookgate token` is accepted.
    let files = testkit::scratch::Scratch::new("paths");
    let file = files.write("hookgate.toml", app.hookgate.config.to_string());
    let minted = testkit::hookgate::command(&["token", "--organization", "org_b", "--user", "u"])
        .arg("--config")
        .arg(file)
        .output()
        .expect("the command runs");
    let minted = String::from_utf8(minted.stdout).expect("a string");
    assert_eq!(identity_of(&app, minted.trim()).await, ("org_b".to_owned(), "u".to_owned()));
}

#[tokio::test]
async fn a_disabled_user_is_refused_with_either_credential() {
    let mut documents = Documents::two_organizations();
    documents.users[0]["enabled"] = json!(false);
    let app = App::build().documents(documents.clone()).start().await;

    assert_refused(&send(&app, "key_a").await, "invalid_api_key", &"key");
    for claims in
        [json!({ "sub": "user_1" }), json!({ "sub": "user_1", "organizationId": "org_b" })]
    {
        assert_refused(&send(&app, &with_exp(&claims)).await, "invalid_token", &claims);
    }
    assert_accepted(&send(&app, "key_b").await, &"another user");

    documents.users[0]["enabled"] = json!(true);
    app.replace_documents(&documents);
    until("the user is enabled again", async || send(&app, "key_a").await.status == 202).await;
    assert_accepted(&send(&app, &with_exp(&json!({ "sub": "user_1" }))).await, &"token");
}

#[tokio::test]
async fn the_scheme_is_read_in_any_case() {
    let app = App::start().await;
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        for credential in ["key_a", &token(&claims("org_a", "u"))] {
            let header = format!("{scheme} {credential}");
            let reply = app.webhook("wh_1").header("authorization", header).send().await;
            assert_accepted(&reply, &(scheme, credential));
        }
    }
}

fn name(algorithm: Algorithm) -> String {
    format!("{algorithm:?}")
}

fn names(algorithms: &[Algorithm]) -> Vec<String> {
    algorithms.iter().copied().map(name).collect()
}

/// A valid token of `org_a` with changed claims.
fn changed(change: &Value) -> String {
    token(&merged(&claims("org_a", "u"), change))
}

/// A token of these claims that expires in an hour.
fn with_exp(claims: &Value) -> String {
    token(&merged(claims, &json!({ "exp": now() + 3600 })))
}

fn merged(claims: &Value, change: &Value) -> Value {
    let mut merged = claims.clone();
    let change = change.as_object().expect("an object").clone();
    merged.as_object_mut().expect("an object").extend(change);
    merged
}

/// Header and claims of a token, with the claims of another organization.
fn swap_claims(signed: &str) -> String {
    let other = token(&claims("org_b", "u"));
    let (header, _) = signed.split_once('.').expect("two parts");
    format!("{header}.{}", other.split('.').nth(1).expect("three parts"))
}

async fn send(app: &App, credential: &str) -> Reply {
    app.webhook("wh_1").bearer(credential).send().await
}

/// Organization and user of the job that a credential starts.
async fn identity_of(app: &App, credential: &str) -> (String, String) {
    assert_accepted(&send(app, credential).await, &credential);
    let jobs = app.redis.queue().waiting().await;
    let job = jobs.last().expect("the accepted job");
    let workflow = if job.at("/organizationId") == "org_a" { "wf_1" } else { "wf_b" };
    assert_eq!(job.at("/workflowId"), workflow);
    (job.at("/organizationId"), job.at("/userId"))
}

#[track_caller]
fn assert_accepted(reply: &Reply, what: &dyn std::fmt::Debug) {
    assert_eq!(reply.status, 202, "{what:?}: {}", reply.text());
    assert_eq!(reply.matched(), 1, "{what:?}");
}

#[track_caller]
fn assert_refused(reply: &Reply, code: &str, what: &dyn std::fmt::Debug) {
    assert_eq!((reply.status, reply.code().as_str()), (401, code), "{what:?}: {}", reply.text());
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"), "{what:?}");
}
