//! Measures CPU time, and checks that the jobs are complete.

use std::time::Duration;

use redis::{Commands, Connection};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::jobs::Jobs;

/// The queue of the default configuration.
pub const QUEUE: &str = "workflow-runner";

/// Microseconds of CPU time for one job.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub redis: f64,
    pub producer: f64,
    /// Jobs in one call to Redis, where the producer chooses the number.
    pub batch: Option<f64>,
}

pub struct Meter {
    connection: Connection,
}

impl Meter {
    pub fn connect(url: &str) -> Self {
        Self { connection: redis::Client::open(url).unwrap().get_connection().unwrap() }
    }

    /// Measures the cost of `add`, which adds the jobs and returns the CPU time of the producer.
    pub fn measure(&mut self, jobs: &Jobs, events: bool, add: impl FnOnce() -> Duration) -> Cost {
        self.reset();
        let before = self.redis_time();
        let producer = add();
        let redis = self.redis_time().saturating_sub(before);
        self.check(jobs, events);
        let per_job = |spent: Duration| spent.as_secs_f64() * 1e6 / jobs.len() as f64;
        Cost { redis: per_job(redis), producer: per_job(producer), batch: None }
    }

    /// Empties the queue to the state that opening a `Queue` leaves. Memory is freed at once and
    /// not in the background, where it would add to the next measurement.
    pub fn reset(&mut self) {
        redis::cmd("FLUSHALL").arg("SYNC").exec(&mut self.connection).unwrap();
        let () = self.connection.hset(key("meta"), "opts.maxLenEvents", "10000").unwrap();
    }

    pub fn version(&mut self) -> String {
        self.info("server", "redis_version")
    }

    /// A field of the oldest job.
    pub fn field_of_first_job(&mut self, field: &str) -> String {
        let id: String = self.connection.lindex(key("wait"), -1).unwrap();
        self.connection.hget(key(&id), field).unwrap()
    }

    /// CPU time of the thread that executes commands.
    fn redis_time(&mut self) -> Duration {
        let seconds = ["used_cpu_user_main_thread", "used_cpu_sys_main_thread"]
            .map(|name| self.info("cpu", name).parse::<f64>().unwrap());
        Duration::from_secs_f64(seconds.iter().sum())
    }

    fn info(&mut self, section: &str, name: &str) -> String {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).unwrap();
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let line = lines.find(|(key, _)| *key == name);
        line.unwrap_or_else(|| panic!("INFO has no {name}")).1.to_owned()
    }

    /// Asserts that every job waits, has its hash and data of the right size, and that events exist
    /// as requested.
    fn check(&mut self, jobs: &Jobs, events: bool) {
        let waiting: usize = self.connection.llen(key("wait")).unwrap();
        assert_eq!(waiting, jobs.len(), "jobs in the list");
        let keys: Vec<String> =
            self.connection.scan_match(key("[0-9]*")).unwrap().map(Result::unwrap).collect();
        assert_eq!(keys.len(), jobs.len(), "hashes of jobs");
        let bytes = self.field_of_first_job("data").len();
        assert_eq!(bytes, jobs.data_bytes, "bytes of data");
        let has_events: bool = self.connection.exists(key("events")).unwrap();
        assert_eq!(has_events, events, "events exist as requested");
    }
}

/// CPU time that this process spends on `work`.
pub fn own_time_of(work: impl FnOnce()) -> Duration {
    let before = own_time();
    work();
    own_time().saturating_sub(before)
}

fn own_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(tv_sec.try_into().unwrap(), tv_nsec.try_into().unwrap())
}

fn key(name: &str) -> String {
    format!("bull:{QUEUE}:{name}")
}
