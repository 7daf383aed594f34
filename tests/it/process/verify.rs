//! `hookgate verify`: a captured delivery is tried, and the reason of a refusal is said.

use std::io::Write;
use std::process::{Output, Stdio};
use testkit::hookgate::command;
use testkit::scratch::Scratch;

/// The example of GitHub's page.
const SECRET: &str = "It's a Secret to Everybody";
const SIGNATURE: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

struct Trial {
    files: Scratch,
    arguments: Vec<String>,
    input: Option<String>,
}

impl Trial {
    fn new(description: &str) -> Self {
        let files = Scratch::new("verify");
        let file = files.write("description.json", description);
        let arguments = vec!["--description".to_owned(), file.display().to_string()];
        Self { files, arguments, input: None }
    }

    fn github() -> Self {
        Self::new(&format!(r#"{{"scheme":"github","secret":"{SECRET}"}}"#))
    }

    fn with(mut self, option: &str, value: &str) -> Self {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    fn file(self, option: &str, content: &str) -> Self {
        let path = self.files.write(option.trim_start_matches('-'), content);
        self.with(option, &path.display().to_string())
    }

    fn input(mut self, input: &str) -> Self {
        self.input = Some(input.to_owned());
        self
    }

    fn output(&self) -> Output {
        let mut command = command(&["verify"]);
        command.args(&self.arguments).stdin(Stdio::piped());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that reads no input may have ended already.
        let _ = stdin.write_all(self.input.as_deref().unwrap_or_default().as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    }

    /// Runs the command and returns what it prints, after a search for secrets in it.
    fn run(&self, code: i32) -> String {
        let output = self.output();
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{text}");
        for secret in [SECRET, "a password", "YSBwYXNzd29yZA"] {
            assert!(!text.contains(secret), "{text}");
        }
        text
    }
}

#[test]
fn an_accepted_delivery_is_explained() {
    let signature = format!("X-Hub-Signature-256: sha256={SIGNATURE}");
    let text = Trial::github()
        .with("--url", "https://hooks.example.com/api/webhook/in/org_1/hook")
        .with("--header", &signature)
        .with("--header", "X-GitHub-Delivery: 72d3162e")
        .file("--body", "Hello, World!")
        .run(0);
    let lines: Vec<&str> = text.lines().collect();
    let found = format!("found: {SIGNATURE}");
    let expected = format!("expected: {SIGNATURE}");
    assert_eq!(
        lines,
        [
            "scheme: github",
            "looked for in: header field x-hub-signature-256, after sha256=",
            "signed: 13 bytes: Hello, World! … Hello, World!",
            found.as_str(),
            expected.as_str(),
            "delivery id: 72d3162e",
            "result: accepted",
        ]
    );
}

#[test]
fn a_refused_delivery_is_explained_and_a_usual_slip_named() {
    let signature = format!("X-Hub-Signature-256: sha256={SIGNATURE}");
    let with_line_break =
        Trial::github().with("--header", &signature).with("--body", "-").input("Hello, World!\n");
    let text = with_line_break.run(1);
    assert!(text.contains("\nresult: refused: wrong_signature\n"), "{text}");
    let hint = "hint: it is right if the line break at the end is removed from the body\n";
    assert!(text.ends_with(hint), "{text}");
    let other = Trial::github().with("--header", &signature).with("--body", "-").input("else");
    let text = other.run(1);
    assert!(text.contains("hint: no usual change"), "{text}");
    let text = Trial::github().with("--body", "-").run(1);
    assert!(text.ends_with("result: refused: missing: x-hub-signature-256\n"), "{text}");
}

#[test]
fn a_time_that_is_off_is_said() {
    let body = r#"{"id":"evt_1"}"#;
    let description = r#"{"scheme":"stripe","secret":"whsec_test_secret"}"#;
    let signature = format!("t=1700000000,v1={}", "00".repeat(32));
    let trial = |at: &str| {
        Trial::new(description)
            .with("--header", &format!("Stripe-Signature: {signature}"))
            .file("--body", body)
            .with("--at", at)
    };
    let text = trial("2023-11-14T22:23:20Z").run(1);
    assert!(text.contains("time: 10m in the past; the tolerance is 5m\n"), "{text}");
    assert!(text.contains("result: refused: wrong_signature\n"), "{text}");
    let expected = text.lines().find_map(|line| line.strip_prefix("expected: ")).expect("one");
    let right = Trial::new(description)
        .with("--header", &format!("Stripe-Signature: t=1700000000,v1={expected}"))
        .file("--body", body);
    let text = right.with("--at", "2023-11-14T22:23:20Z").run(1);
    let refusal = "result: refused: too_old: t (off by -600000 ms)\n";
    assert!(text.contains(refusal), "{text}");
    assert!(text.ends_with("hint: the signature is right, and only the time is not\n"), "{text}");
}

#[test]
fn a_captured_request_is_read_whole() {
    let request = format!(
        "POST /api/webhook/in/org_1/hook HTTP/1.1\r\nHost: hooks.example.com\r\n\
         X-Hub-Signature-256: sha256={SIGNATURE}\r\n\r\nHello, World!"
    );
    assert!(Trial::github().file("--request", &request).run(0).contains("result: accepted"));
    let other = "X-Hub-Signature-256: sha256=00";
    let text = Trial::github().file("--request", &request).with("--header", other).run(1);
    assert!(text.contains("found: 00\n"), "{text}");
    let chunked = request.replace("Host:", "Transfer-Encoding: chunked\r\nHost:");
    let text = Trial::github().file("--request", &chunked).run(2);
    assert!(text.contains("its body is chunked"), "{text}");
}

#[test]
fn a_handshake_is_answered() {
    let description = r#"{"scheme":"dropbox","secret":"a password"}"#;
    let text = Trial::new(description)
        .with("--method", "GET")
        .with("--url", "https://hooks.example.com/hook?challenge=abc")
        .run(0);
    assert!(text.contains("\nhandshake: 200 text/plain abc\n"), "{text}");
}

#[test]
fn a_signed_handshake_that_cannot_be_answered_is_refused() {
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"v0:1:{}"}}"#;
    let trial = |signature: &str| {
        Trial::new(r#"{"scheme":"zoom","secret":"a password"}"#)
            .with("--header", &format!("x-zm-signature: v0={signature}"))
            .with("--header", "x-zm-request-timestamp: 1700000000")
            .with("--at", "2023-11-14T22:13:20Z")
            .file("--body", body)
            .run(1)
    };
    let text = trial(&"00".repeat(32));
    let expected = text.lines().find_map(|line| line.strip_prefix("expected: ")).expect("one");
    let text = trial(expected);
    assert!(text.contains("result: refused: the signature is right, but what the"), "{text}");
    assert!(!text.contains("encryptedToken"), "{text}");
}

#[test]
fn a_secret_is_never_expected_or_found_in_the_output() {
    for (description, header, url, code) in [
        (r#"{"scheme":"header","name":"X-Key","secret":"a password"}"#, "X-Key: a password", "", 0),
        (r#"{"scheme":"header","name":"X-Key","secret":"a password"}"#, "X-Key: no", "", 1),
        (
            r#"{"scheme":"basic","user":"me","secret":"a password"}"#,
            "Authorization: Basic bWU6YSBwYXNzd29yZA==",
            "",
            0,
        ),
        (r#"{"scheme":"query","name":"key","secret":"a password"}"#, "X: y", "?key=a+password", 0),
        (r#"{"scheme":"hmac","header":"X-Key","secret":"a password"}"#, "X-Key: a password", "", 1),
    ] {
        let url = format!("https://hooks.example.com/hook{url}");
        Trial::new(description)
            .with("--header", header)
            .with("--url", &url)
            .file("--body", r#"{"key":"a password"}"#)
            .run(code);
    }
    let body = r#"{"scheme":"bodySecret","path":"key","secret":"a password"}"#;
    Trial::new(body).file("--body", r#"{"key":"a password"}"#).run(0);
}

#[test]
fn a_named_verification_is_that_of_the_configuration() {
    let files = Scratch::new("verify-named");
    files.write("secret", SECRET);
    let config = files.write(
        "hookgate.toml",
        format!(
            "[server]\nlisten = \"no address\"\n[endpoints.verification.gh]\nscheme = \"github\"\n\
             organizations = [\"org_1\"]\nsecret_file = {:?}\n",
            files.join("secret")
        ),
    );
    let trial = |name: &str| {
        let arguments = ["--named", name, "--config"].map(str::to_owned);
        let arguments = arguments.into_iter().chain([config.display().to_string()]).collect();
        let trial = Trial { files: Scratch::new("verify-body"), arguments, input: None };
        trial
            .with("--header", &format!("X-Hub-Signature-256: sha256={SIGNATURE}"))
            .file("--body", "Hello, World!")
    };
    assert!(trial("gh").run(0).contains("result: accepted"));
    assert!(trial("other").run(2).contains("there is no [endpoints.verification.other]"));
}

#[test]
fn what_cannot_be_read_is_code_2() {
    for (description, expected) in [
        ("{", "the description is not JSON: line 1, column 1"),
        ("[]", "the description is not an object"),
        (r#"{"scheme":"githup","secret":"a password"}"#, "did you mean github?"),
        (r#"{"scheme":"github","secret":"a password" "a password"}"#, "is not JSON"),
        (r#"{"scheme":"github"}"#, "secret is missing"),
    ] {
        let text = Trial::new(description).run(2);
        assert!(text.contains(expected), "{text}");
    }
    let text = Trial::github().with("--header", "no field").run(2);
    assert!(text.contains("it has no colon"), "{text}");
    let text = Trial::github().with("--body", "/nowhere/body").run(2);
    assert!(text.contains("/nowhere/body"), "{text}");
    let text = Trial::github().with("--named", "x").run(2);
    assert!(text.contains("cannot be used with"), "{text}");
}
