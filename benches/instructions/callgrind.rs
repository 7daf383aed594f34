//! Runs Hookgate under callgrind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use testkit::hookgate::{self, Surroundings};
use testkit::scratch::Scratch;
use testkit::{Config, Documents, Hookgate, Redis};

/// Hookgate with one worker under callgrind, and its Redis.
pub struct Counted {
    hookgate: Hookgate,
    redis: Redis,
    /// The pipe that valgrind reads commands from.
    pipe: String,
    profiles: PathBuf,
    _files: Scratch,
}

impl Counted {
    pub async fn start(documents: Documents) -> Self {
        let files = Scratch::new("instructions");
        let profiles = Path::new(env!("CARGO_TARGET_TMPDIR")).join("instructions");
        // Removes the profiles of the last run, if there are any.
        let _ = fs::remove_dir_all(&profiles);
        fs::create_dir_all(&profiles).unwrap();
        let redis = Redis::start().await;
        let mut config = Config::new();
        config
            .set("server.workers", 1)
            .set("telemetry.log", "info")
            .set("queue.redis", redis.url())
            .set("triggers.file", text(&files.write("workflows.json", documents.to_json())));
        let pipe = format!("--vgdb-prefix={}", text(&files.join("pipe")));
        let dumps = format!("--callgrind-out-file={}", text(&profiles.join("dump")));
        let program = program();
        let callgrind = ["valgrind", "--tool=callgrind", "--separate-threads=yes", &pipe, &dumps];
        let words = callgrind.into_iter().chain([text(&program)]).map(str::to_owned).collect();
        let surroundings = Surroundings { program: words, ..Surroundings::default() };
        let hookgate = Hookgate::start_in(config, surroundings).await;
        hookgate.ready().await;
        Self { hookgate, redis, pipe, profiles, _files: files }
    }

    /// Sets the shape of the data of jobs.
    pub async fn use_template(&mut self, template: Option<&str>) {
        let config = &mut self.hookgate.config;
        match template {
            Some(template) => config.set("queue.data", template.parse::<toml::Table>().unwrap()),
            None => config.remove("queue.data"),
        };
        self.hookgate.reload().await;
    }

    pub fn address(&self) -> SocketAddr {
        self.hookgate.address()
    }

    /// The folder with a profile for each counted scenario.
    pub fn profiles(&self) -> &Path {
        &self.profiles
    }

    /// Number of jobs in Redis.
    pub async fn jobs(&self) -> u64 {
        self.redis.query(redis::cmd("LLEN").arg(self.redis.queue().key("wait"))).await
    }

    /// Starts counting.
    pub async fn begin(&self) {
        self.run_method("zero").await;
    }

    /// Instructions of the worker since the start. The worker is the thread that has executed most.
    pub async fn end(&self, name: &str) -> u64 {
        self.run_method("dump").await;
        let files = fs::read_dir(&self.profiles).unwrap().map(|entry| entry.unwrap().path());
        // Profiles are numbered; the kept one gets the name of its scenario.
        let threads = files.filter(|file| file.extension().is_some());
        let mut counts: Vec<(u64, PathBuf)> = threads.map(|file| (total(&file), file)).collect();
        counts.sort_unstable();
        let (instructions, worker) = counts.pop().expect("a file for each thread");
        fs::rename(worker, self.profiles.join(name)).unwrap();
        for (_, file) in counts {
            fs::remove_file(file).unwrap();
        }
        instructions
    }

    async fn run_method(&self, what: &str) {
        let pid = format!("--pid={}", self.hookgate.process().pid());
        let mut command = tokio::process::Command::new("vgdb");
        let output =
            command.args([&self.pipe, &pid, what]).output().await.expect("valgrind is installed");
        assert!(output.status.success(), "vgdb {what}: {output:?}");
    }
}

/// The release build, next to the one for tests.
fn program() -> PathBuf {
    let builds = hookgate::program().ancestors().nth(2).unwrap();
    let program = builds.join("release/hookgate");
    assert!(program.exists(), "{} does not exist: run scripts/instructions", program.display());
    program
}

/// Instructions in a file of callgrind.
fn total(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.expect("callgrind writes a total").trim().parse().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
