//! Secrets: where they are read from, and that no output contains them.

use super::{SHIPPED, check, faults, keys, with_value};
use jsonwebtoken::{Algorithm, Header};
use serde_json::json;
use testkit::hookgate::{Surroundings, check_connect, command};
use testkit::keys::{KeyPair, hmac};
use testkit::scratch::Scratch;
use testkit::tls::Authority;
use testkit::tokens::{claims, sign};
use testkit::wait::until;
use testkit::{App, Caller, Config, Documents, Hookgate, Redis};

/// A string that is in every secret and must not be in any output.
const MARK: &str = "Zq7MarkZq7";

#[tokio::test]
async fn secrets_can_be_read_from_files() {
    let redis = Redis::start().await;
    let build = App::build();
    let file = build.file("redis", format!("{}\n", redis.url()));
    let app = build
        .redis(redis)
        .redis_address("redis://127.0.0.1:1/0")
        .config(|config| {
            config.set("queue.redis_file", file);
        })
        .start()
        .await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);

    let files = Scratch::new("secrets");
    let path = |name: &str, content: &str| files.write(name, content).display().to_string();
    let good = path("good", "mongodb://127.0.0.1:1/\n");
    let text = format!("[mongodb]\nuri = \"nowhere\"\nuri_file = \"{good}\"\n");
    assert!(faults(&text).is_empty(), "the file takes precedence over the value");
    let bad = path("bad", MARK);
    assert_eq!(keys(&faults(&format!("[mongodb]\nuri_file = \"{bad}\"\n"))), ["mongodb.uri"]);

    let (empty, blank) = (path("empty", "\n"), path("blank", " \t \n"));
    for file in ["/nowhere/secret", empty.as_str(), blank.as_str()] {
        for key in ["mongodb.uri_file", "queue.redis_file"] {
            let found = faults(&with_value(key, &format!("\"{file}\"")));
            assert_eq!(keys(&found), [key], "{file}: {found:?}");
        }
        for key in ["secret_files", "public_key_files"] {
            let key = format!("auth.jwt.{key}");
            let found = faults(&with_value(&key, &format!("[\"{file}\"]")));
            assert_eq!(keys(&found), [key], "{file}");
        }
        let found = faults(&with_value("auth.jwt.jwks_file", &format!("\"{file}\"")));
        assert_eq!(keys(&found), ["auth.jwt.jwks_file"], "{file}");
    }
}

/// White space that a command, a file, an editor or a multi-line string puts around a secret is not
/// part of it.
#[tokio::test]
async fn white_space_around_a_secret_is_ignored() {
    const MARK: &str = "\u{feff}";
    let secrets = ["environment", "list", "several-lines", "file", "marked-file"]
        .map(|name| format!("a-secret-of-the-{name}-which-is-long-enough-for-hs256"));
    let build = App::build();
    let file = build.file("secret", format!("{}\r\n\n", secrets[3]));
    let marked = build.file("marked", format!("{MARK}{}\n", secrets[4]));
    let app = build
        .config(|config| {
            config.remove("auth.jwt.secrets").set("auth.jwt.secret_files", vec![file, marked]);
        })
        .variable("HOOKGATE__AUTH__JWT__SECRETS", &format!("{}\n", secrets[0]))
        .start()
        .await;
    for secret in [&secrets[0], &secrets[3], &secrets[4]] {
        let token = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(secret));
        assert_eq!(app.webhook("wh_1").bearer(&token).send().await.status, 202, "{secret}");
    }
    for list in [
        format!("[\"{}\\n\"]\r\n", secrets[1]),
        format!("[\"\"\"\n{}\n\"\"\"]", secrets[1]),
        format!("{MARK}{}", secrets[1]),
    ] {
        let app = App::build()
            .config(|config| {
                config.set("auth.jwt.secrets", vec![format!("\n{}\n", secrets[2])]);
            })
            .variable("HOOKGATE__AUTH__JWT__SECRETS", &list);
        let app = app.start().await;
        let token = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(&secrets[1]));
        assert_eq!(app.webhook("wh_1").bearer(&token).send().await.status, 202, "{list}");
    }
    let app = App::with(|config| {
        config.set("auth.jwt.secrets", vec![format!("{}\r\n", secrets[2])]);
    });
    let app = app.await;
    let token = sign(&claims("org_a", "u"), Algorithm::HS256, &hmac(&secrets[2]));
    assert_eq!(app.webhook("wh_1").bearer(&token).send().await.status, 202, "in the file");
}

#[tokio::test]
async fn white_space_around_an_environment_value_is_ignored() {
    let redis = Redis::start().await;
    let mut config = Config::new();
    let listen = config.text("server.listen").to_owned();
    config.set("server.listen", "nowhere").set("triggers.file", "config/workflows.json");
    let variables = [
        ("HOOKGATE__SERVER__LISTEN", format!("{listen}\n")),
        ("HOOKGATE__QUEUE__REDIS", format!("{}\r\n", redis.url())),
        ("HOOKGATE__SERVER__WORKERS", "1\n".to_owned()),
        ("HOOKGATE__SERVER__CONTENT_ENCODINGS", "gzip\n".to_owned()),
        ("HOOKGATE__TRIGGERS__MAX_STALENESS", "\u{feff}40s\n".to_owned()),
        ("HOOKGATE__QUEUE__JOB__BACKOFF__TYPE", "fixed\n".to_owned()),
        ("HOOKGATE__TELEMETRY__FORMAT", "text\n".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let surroundings = Surroundings { variables, ..Surroundings::default() };
    let mut hookgate = Hookgate::start_in(config, surroundings).await;
    hookgate.config.set("server.listen", listen);
    hookgate.ready().await;
    // A warning would name the variable.
    assert!(!hookgate.log().contains("HOOKGATE__"), "{}", hookgate.log());
}

/// Some editors write one at the start of every file.
#[tokio::test]
async fn a_byte_order_mark_is_skipped_in_every_file() {
    const MARK: &str = "\u{feff}";
    let marked = |text: &str| format!("{MARK}{text}");
    let redis = Redis::start().await;
    let authority = Authority::new();
    let identity = authority.issue();
    authority.replace_certificate(&marked(&identity.chain_pem));
    authority.replace_key(&marked(&identity.key_pem));
    let [pem, jwk] = [Algorithm::ES256, Algorithm::RS256].map(KeyPair::for_algorithm);
    let files = Scratch::new("marks");
    let path = |name: &str, text: &str| files.write(name, marked(text)).display().to_string();
    let documents = Documents::two_organizations().to_json();
    let set = json!({ "keys": [jwk.jwk(Algorithm::RS256, "the-key")] }).to_string();
    let config = |config: &mut Config| {
        config.set("auth.jwt.algorithms", vec!["ES256", "RS256"]);
        config.set("auth.jwt.public_key_files", vec![path("key.pem", &pem.public_pem)]);
        config.set("auth.jwt.jwks_file", path("jwks.json", &set));
        config.set("queue.redis_file", path("redis", &redis.url()));
    };
    let app = App::build().config(config).tls(&authority).start().await;
    app.replace_documents_text(&marked(&documents));
    let bearer = |pair: &KeyPair, algorithm, id: Option<&str>| {
        let mut header = Header::new(algorithm);
        header.kid = id.map(str::to_owned);
        let key = pair.encoding_key(algorithm);
        jsonwebtoken::encode(&header, &claims("org_a", "u"), &key).expect("a token")
    };
    let by_pem = bearer(&pem, Algorithm::ES256, None);
    let by_set = bearer(&jwk, Algorithm::RS256, Some("the-key"));
    for token in [&by_pem, &by_set] {
        assert_eq!(app.webhook("wh_1").bearer(token).send().await.matched(), 1);
    }
    // Secrets are read again when they change, and the other commands read them too.
    files.write(
        "jwks.json",
        marked(&json!({ "keys": [pem.jwk(Algorithm::ES256, "the-key")] }).to_string()),
    );
    until("the set is read again", async || {
        app.webhook("wh_1").bearer(&by_set).send().await.status == 401
    })
    .await;
    let text = marked(&app.hookgate.config.to_string());
    assert_eq!(check(&text, &[]).0, 0);
    app.hookgate.terminate().await;

    let file = files.write("documents.json", marked(&documents));
    let mut config = app.hookgate.config.clone();
    config.set("triggers.file", file.display().to_string());
    let (code, report) = check_connect(&config).await;
    assert_eq!((code, &report["triggers_file"]["faults"]), (0, &json!([])), "{report}");

    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = files.write("hookgate.toml", utf16);
    let output = command(&["check", "--config"]).arg(file).output().expect("the binary runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("UTF-16"), "{output:?}");
}

#[test]
fn no_fault_message_contains_a_secret() {
    let files = Scratch::new("secrets");
    let path = |name: &str, content: &str| files.write(name, content).display().to_string();
    let (file, jwks) = (path("secret", MARK), path("jwks", &format!("{{\"keys\":[\"{MARK}\"]}}")));
    let lines = [
        ("auth.jwt.secrets", format!("\"{MARK}\"")),
        ("auth.jwt.secrets", format!("[[\"{MARK}\"]]")),
        ("auth.jwt.secrets", format!("{{ a = \"{MARK}\" }}")),
        ("auth.jwt.secrets", format!("\"{MARK}")),
        ("auth.jwt.secrets", format!("[\"{MARK}\" \"a\"]")),
        ("auth.jwt.secrets", MARK.to_owned()),
        ("auth.jwt.public_key_files", format!("[\"{file}\"]")),
        ("auth.jwt.jwks_file", format!("\"{jwks}\"")),
        ("queue.redis", format!("\"redis://:{MARK}@[\"")),
        ("queue.redis", format!("\"{MARK}\"")),
        ("queue.redis", format!("[\"{MARK}\"]")),
        ("queue.redis_file", format!("\"{file}\"")),
        ("mongodb.uri", format!("\"http://a:{MARK}@b\"")),
        ("mongodb.uri", format!("[\"{MARK}\"]")),
        ("mongodb.uri_file", format!("\"{file}\"")),
    ];
    for (key, value) in lines {
        let (code, out) = check(&with_value(key, &value), &[]);
        assert_eq!(code, 2, "{key} = {value}");
        assert!(!out.contains(MARK), "{out}");
    }
    for variable in ["QUEUE__REDIS", "MONGODB__URI", "AUTH__JWT__SECRET"] {
        let (code, out) = check(SHIPPED, &[(&format!("HOOKGATE__{variable}"), MARK)]);
        assert!(code == 2 && !out.contains(MARK), "{code}: {out}");
    }
}

#[tokio::test]
async fn the_service_logs_no_secret_at_any_level() {
    let redis = Redis::start().await;
    let mut config = Config::new();
    let with_password = redis.url().replacen("://", &format!("://:{MARK}@"), 1);
    config.set("telemetry.log", "trace").set("triggers.source", "mongodb");
    config.set("auth.jwt.secrets", vec![MARK]).set("queue.redis", with_password);
    config.set("mongodb.uri", format!("mongodb://user:{MARK}@127.0.0.1:1/?replicaSet=rs0"));
    let hookgate = Hookgate::start_unready(config).await;
    until("MongoDB is reported as a reason", async || {
        hookgate.readiness().await.1["reasons"].to_string().contains("not loaded:")
    })
    .await;
    let call = Caller::new(hookgate.address()).webhook("wh_1").bearer(MARK);
    assert_eq!(call.send().await.status, 503);

    let pages = ["/", "/readyz", "/metrics"];
    for page in pages {
        let text = hookgate.admin_get(page).await.text().await.expect("a string");
        assert!(!text.contains(MARK), "{page}: {text}");
    }
    hookgate.terminate().await;
    let log = hookgate.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(MARK)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
