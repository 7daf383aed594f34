//! Secrets: where they are read from, and that nothing prints them.

use super::harness::scratch::Scratch;
use super::harness::wait::until;
use super::harness::{App, Caller, Config, Hookgate, Redis};
use super::{SHIPPED, check, faults, keys, with_value};

/// Stands in every secret, and must not stand in anything that is printed.
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
    assert!(faults(&text).is_empty(), "the file goes before the value");
    let bad = path("bad", MARK);
    assert_eq!(keys(&faults(&format!("[mongodb]\nuri_file = \"{bad}\"\n"))), ["mongodb.uri"]);

    let empty = path("empty", "\n");
    for file in ["/nowhere/secret", empty.as_str()] {
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

#[test]
fn no_fault_repeats_a_secret() {
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
async fn the_service_tells_no_secret_however_much_it_logs() {
    let redis = Redis::start().await;
    let mut config = Config::new();
    let with_password = redis.url().replacen("://", &format!("://:{MARK}@"), 1);
    config.set("telemetry.log", "trace").set("triggers.source", "mongodb");
    config.set("auth.jwt.secrets", vec![MARK]).set("queue.redis", with_password);
    config.set("mongodb.uri", format!("mongodb://user:{MARK}@127.0.0.1:1/?replicaSet=rs0"));
    let hookgate = Hookgate::start_unready(config).await;
    until("MongoDB is told as a reason", async || {
        hookgate.readiness().await.1["reasons"].to_string().contains("not loaded:")
    })
    .await;
    let call = Caller::new(hookgate.address()).webhook("wh_1").bearer(MARK);
    assert_eq!(call.send().await.status, 503);

    let pages = ["/", "/readyz", "/metrics"];
    for page in pages {
        let text = hookgate.admin_get(page).await.text().await.expect("text");
        assert!(!text.contains(MARK), "{page}: {text}");
    }
    hookgate.terminate().await;
    let log = hookgate.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(MARK)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
}
