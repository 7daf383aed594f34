//! The bare commands that add a job, as BullMQ's own queue would write it.

use bytes::{Buf, BufMut, BytesMut};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

pub const ID_COUNTER: &str = "bull:workflow-runner:id";
const JOB_PREFIX: &str = "bull:workflow-runner:";
const EVENTS: &str = "bull:workflow-runner:events";

const OPTIONS: &str = r#"{"attempts":3,"backoff":{"type":"exponential","delay":1000},"removeOnComplete":{"age":86400,"count":10000},"removeOnFail":{"age":604800}}"#;
/// The data of a job is the body between these two, and the time.
const DATA_HEAD: &str = r#"{"workflowId":"wf_000000","organizationId":"org_000000","userId":"user_1","trigger":{"type":"WebhookTrigger","nodeIds":["n1"],"webhookId":"wh_000000","payload":"#;
const DATA_TAIL: &str = r#"},"requestId":"00000000000000000000000000000000","receivedAt":"#;

// Arguments that differ from job to job.
const KEY: &str = "<key>";
const ID: &str = "<id>";
const DATA: &str = "<data>";
const TIME: &str = "<time>";

const COMMANDS: [&[&str]; 6] = [
    &["INCR", ID_COUNTER],
    &[
        "HSET",
        KEY,
        "name",
        "workflow",
        "data",
        DATA,
        "opts",
        OPTIONS,
        "timestamp",
        TIME,
        "delay",
        "0",
        "priority",
        "0",
    ],
    &["LPUSH", "bull:workflow-runner:wait", ID],
    &["ZADD", "bull:workflow-runner:marker", "0", "0"],
    &["XADD", EVENTS, "*", "event", "added", "jobId", ID, "name", "workflow"],
    &["XADD", EVENTS, "MAXLEN", "~", "10000", "*", "event", "waiting", "jobId", ID],
];
/// Lines of the replies to these commands: an integer is one line, the id of an event is two.
/// The first line is the reply to INCR.
pub const REPLY_LINES: usize = 8;

/// The commands in the protocol of Redis, cut where an argument differs from job to job.
pub struct Commands(Vec<Part>);

enum Part {
    Constant(String),
    Key,
    Id,
    Data,
    Time,
}

impl Commands {
    pub fn new() -> Self {
        let mut parts = Vec::new();
        let mut constant = String::new();
        for command in COMMANDS {
            constant += &format!("*{}\r\n", command.len());
            for &argument in command {
                let part = match argument {
                    KEY => Part::Key,
                    ID => Part::Id,
                    DATA => Part::Data,
                    TIME => Part::Time,
                    _ => {
                        constant += &format!("${}\r\n{argument}\r\n", argument.len());
                        continue;
                    }
                };
                parts.push(Part::Constant(std::mem::take(&mut constant)));
                parts.push(part);
            }
        }
        Self(parts)
    }

    /// Appends the commands of a job.
    pub fn put(&self, out: &mut BytesMut, id: u64, mut body: impl Buf) {
        let id = id.to_string();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = now.as_millis().to_string();
        for part in &self.0 {
            match part {
                Part::Constant(text) => out.put_slice(text.as_bytes()),
                Part::Key => put_argument(out, &[JOB_PREFIX, &id]),
                Part::Id => put_argument(out, &[&id]),
                Part::Time => put_argument(out, &[&time]),
                Part::Data => {
                    let constant = DATA_HEAD.len() + DATA_TAIL.len() + "}".len();
                    put_length(out, constant + body.remaining() + time.len());
                    out.put_slice(DATA_HEAD.as_bytes());
                    out.put(&mut body);
                    for text in [DATA_TAIL, &time, "}\r\n"] {
                        out.put_slice(text.as_bytes());
                    }
                }
            }
        }
    }
}

fn put_argument(out: &mut BytesMut, texts: &[&str]) {
    put_length(out, texts.iter().map(|text| text.len()).sum());
    for text in texts {
        out.put_slice(text.as_bytes());
    }
    out.put_slice(b"\r\n");
}

fn put_length(out: &mut BytesMut, length: usize) {
    write!(out, "${length}\r\n").expect("the buffer grows");
}
