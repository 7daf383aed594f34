//! The bare commands of a job, as the floor with Redis sends them: loadtest/peers/floor.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::Range;

use crate::jobs::Jobs;
use crate::meter::{Cost, Meter, QUEUE, own_time_of};
use crate::{MOST_BATCH_BYTES, NAME, WARM_UP};

/// Writes that wait for their replies, as many as Hookgate has calls under way.
const UNDER_WAY: usize = 2;
/// Lines of the replies to the commands of a job: an integer is one line, the id of an event is two.
const REPLY_LINES: usize = 8;

pub fn measure(url: &str, jobs: &Jobs, options: &str, batch: usize, meter: &mut Meter) -> Cost {
    let address = url.trim_start_matches("redis://").split('/').next().unwrap();
    let mut connection = Connection::new(TcpStream::connect(address).unwrap());
    let batch = batch.min(MOST_BATCH_BYTES / jobs.data_bytes);
    meter.reset();
    connection.add(&jobs.first(WARM_UP), options, batch);
    let cost = meter.measure(jobs, true, || own_time_of(|| connection.add(jobs, options, batch)));
    Cost { batch: Some(batch as f64), ..cost }
}

struct Connection {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { replies: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    /// Adds the jobs to an empty queue, so that the next id is known.
    fn add(&mut self, jobs: &Jobs, options: &str, batch: usize) {
        let batches: Vec<Range<usize>> = (0..jobs.len())
            .step_by(batch)
            .map(|first| first..jobs.len().min(first + batch))
            .collect();
        for (place, batch) in batches.iter().enumerate() {
            if let Some(earlier) = place.checked_sub(UNDER_WAY) {
                self.read_replies(batches[earlier].len());
            }
            self.stream.write_all(&commands(jobs, options, batch.clone())).unwrap();
        }
        for batch in &batches[batches.len().saturating_sub(UNDER_WAY)..] {
            self.read_replies(batch.len());
        }
    }

    fn read_replies(&mut self, jobs: usize) {
        let mut line = String::new();
        for _ in 0..jobs * REPLY_LINES {
            line.clear();
            self.replies.read_line(&mut line).unwrap();
            assert!(!line.is_empty() && !line.starts_with('-'), "Redis replies {line:?}");
        }
    }
}

/// In the protocol of Redis.
fn commands(jobs: &Jobs, options: &str, range: Range<usize>) -> Vec<u8> {
    let key = |name: &str| format!("bull:{QUEUE}:{name}");
    let mut pipe = redis::pipe();
    for index in range {
        let data = jobs.webhooks[index].data.to_string();
        let id = (index + 1).to_string();
        pipe.cmd("INCR").arg(key("id"));
        pipe.cmd("HSET").arg(key(&id)).arg(&["name", NAME, "data", &data, "opts", options]);
        pipe.arg(&["timestamp", "1700000000000", "delay", "0", "priority", "0"]);
        pipe.cmd("LPUSH").arg(key("wait")).arg(&id);
        pipe.cmd("ZADD").arg(key("marker")).arg(&["0", "0"]);
        pipe.cmd("XADD").arg(key("events")).arg(&["*", "event", "added", "jobId", &id]);
        pipe.arg(&["name", NAME]);
        pipe.cmd("XADD").arg(key("events")).arg(&["MAXLEN", "~", "10000", "*", "event", "waiting"]);
        pipe.arg(&["jobId", &id]);
    }
    pipe.get_packed_pipeline()
}
