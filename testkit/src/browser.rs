//! Chromium, which shows a page and reports what it shows: `tests/browser`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A browser with one page. It ends when this is dropped, and with the test process.
#[derive(Debug)]
pub struct Browser {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _process: Child,
}

/// What a page shows, and what went wrong in it. `tests/browser/page.mjs` has the members.
#[derive(Debug, serde::Deserialize)]
pub struct View {
    pub shown: Value,
    /// Errors of the console and violations of the page's policy.
    pub faults: Vec<String>,
    /// The path of each request; the URL of one to another host.
    pub requests: Vec<String>,
}

/// How a page is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// The width of the window in pixels.
    pub width: u32,
    pub is_dark: bool,
    /// Whether timers of the page fire only at [`Browser::tick`].
    pub has_manual_timers: bool,
}

impl Opening {
    pub const DESKTOP: Self = Self { width: 1200, is_dark: false, has_manual_timers: false };
}

impl Browser {
    pub fn start() -> Self {
        let package = super::root().join("tests/browser");
        assert!(package.join("node_modules").is_dir(), "no browser: run scripts/setup test");
        let mut command = Command::new("node");
        command.arg(package.join("page.mjs")).arg(chromium());
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("node runs");
        let input = process.stdin.take().expect("the input is a pipe");
        let output = process.stdout.take().expect("the output is a pipe");
        Self { input, output: BufReader::new(output).lines(), _process: process }
    }

    /// Opens a page in place of the last one.
    pub async fn open(&mut self, url: &str, opening: Opening) -> View {
        let Opening { width, is_dark, has_manual_timers } = opening;
        let scheme = if is_dark { "dark" } else { "light" };
        let command = json!({
            "do": "open", "url": url, "width": width, "scheme": scheme,
            "manual": has_manual_timers,
        });
        self.run(command).await
    }

    pub async fn read(&mut self) -> View {
        self.run(json!({ "do": "read" })).await
    }

    /// Lets the timers of the page fire that are waiting now.
    pub async fn tick(&mut self) -> View {
        self.run(json!({ "do": "tick" })).await
    }

    /// Shows or hides the page, as another tab does.
    pub async fn set_visible(&mut self, is_visible: bool) -> View {
        self.run(json!({ "do": "visible", "value": is_visible })).await
    }

    /// Writes a picture of the whole page.
    pub async fn screenshot(&mut self, file: &Path) -> View {
        self.run(json!({ "do": "shot", "file": file })).await
    }

    async fn run(&mut self, command: Value) -> View {
        self.input.write_all(format!("{command}\n").as_bytes()).await.expect("it reads");
        let answer = self.output.next_line().await.expect("a string");
        serde_json::from_str(&answer.expect("the browser runs")).expect("JSON")
    }
}

/// Debian's Chromium, or that in `.tools`.
fn chromium() -> PathBuf {
    let own = super::root().join(".tools/chromium");
    let places = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"].map(PathBuf::from);
    let mut places = std::iter::once(own).chain(places);
    places.find(|place| place.exists()).expect("no Chromium: run scripts/setup test")
}
