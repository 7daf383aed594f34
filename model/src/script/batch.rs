//! One call of the script.

use super::Text;
use super::execution::Target;

/// The arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    pub keys: Keys,
    pub job_name: Text,
    /// The options of jobs whose request has none.
    pub options: Text,
    pub paused_layout: PausedLayout,
    pub writes_events: bool,
    /// Lifetime of the record of the producer, in milliseconds.
    pub record_ttl: u64,
    pub number: u64,
    /// The low-water mark.
    pub mark: u64,
    /// On the clock of the server.
    pub deadline: u64,
    pub timestamp: u64,
    pub is_withdrawal: bool,
    pub requests: Vec<Request>,
}

/// The names of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keys {
    pub wait: Text,
    pub paused: Text,
    pub meta: Text,
    pub id: Text,
    pub events: Text,
    pub marker: Text,
    pub active: Text,
    /// The record of the producer.
    pub producer: Text,
    pub job_prefix: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PausedLayout {
    Auto,
    V5,
    V6,
}

/// A request of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The beginning of the data of each job.
    pub heads: Vec<Text>,
    /// The end of the data of every job.
    pub tail: Text,
    /// The options of its jobs; empty: those of the batch.
    pub options: Text,
    pub key: Option<IdempotencyKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// The key of the record.
    pub key: Text,
    /// What a repeat has in common with the first, in hexadecimal digits.
    pub fingerprint: Text,
    /// Lifetime of the record, in milliseconds.
    pub ttl: u64,
}

impl Batch {
    /// Parses KEYS and ARGV of a call; `None` if they are not those of the script.
    pub fn parse(keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Option<Self> {
        let keys: Vec<Text> = keys.iter().map(|key| text(key)).collect();
        let arguments: Vec<Text> = arguments.iter().map(|argument| text(argument)).collect();
        let argument = |position: usize| arguments.get(position - 1).cloned();
        let number = |position| argument(position)?.parse().ok();
        let batch = Self {
            keys: Keys::parse(&keys, argument(1)?)?,
            job_name: argument(2)?,
            options: argument(3)?,
            paused_layout: PausedLayout::parse(&argument(4)?)?,
            writes_events: &*argument(5)? == "1",
            record_ttl: number(6)?,
            number: number(7)?,
            mark: number(8)?,
            deadline: number(9)?,
            timestamp: number(10)?,
            is_withdrawal: &*argument(11)? == "-",
            requests: parse_requests(keys.get(8..)?, arguments.get(11..)?)?,
        };
        let is_complete = batch.is_withdrawal || argument(11)?.parse() == Ok(batch.job_count());
        is_complete.then_some(batch)
    }

    /// Number of jobs of all requests.
    pub fn job_count(&self) -> usize {
        self.requests.iter().map(|request| request.heads.len()).sum()
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.requests.is_empty() && !self.is_withdrawal
    }
}

impl Keys {
    fn parse(keys: &[Text], job_prefix: Text) -> Option<Self> {
        let [wait, paused, meta, id, events, marker, active, producer] =
            keys.first_chunk::<8>()?.clone();
        Some(Self { wait, paused, meta, id, events, marker, active, producer, job_prefix })
    }

    pub(super) fn list(&self, target: Target) -> &Text {
        match target {
            Target::Wait => &self.wait,
            Target::Paused => &self.paused,
        }
    }

    pub(super) fn job(&self, id: i64) -> String {
        format!("{}{id}", self.job_prefix)
    }
}

impl PausedLayout {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "v5" => Some(Self::V5),
            "v6" => Some(Self::V6),
            _ => None,
        }
    }
}

/// Parses the requests, of which each with a fingerprint has the next of the keys.
fn parse_requests(keys: &[Text], arguments: &[Text]) -> Option<Vec<Request>> {
    let (mut keys, mut arguments) = (keys.iter(), arguments.iter());
    let mut requests = Vec::new();
    while let Some(first) = arguments.next() {
        requests.push(if let Ok(jobs) = first.parse() {
            parse_long_form(jobs, &mut keys, &mut arguments)?
        } else {
            Request {
                heads: vec![Text::clone(first)],
                tail: "".into(),
                options: "".into(),
                key: None,
            }
        });
    }
    // A dry run names further keys, so that the permission for them is checked.
    Some(requests)
}

fn parse_long_form<'a>(
    jobs: usize,
    keys: &mut impl Iterator<Item = &'a Text>,
    arguments: &mut impl Iterator<Item = &'a Text>,
) -> Option<Request> {
    let (options, condition, tail) = (arguments.next()?, arguments.next()?, arguments.next()?);
    let heads: Vec<Text> = arguments.take(jobs).cloned().collect();
    let key = match &**condition {
        "" => None,
        condition => {
            let (fingerprint, ttl) = condition.split_once(' ')?;
            let (key, fingerprint) = (Text::clone(keys.next()?), fingerprint.into());
            Some(IdempotencyKey { key, fingerprint, ttl: ttl.parse().ok()? })
        }
    };
    let is_complete = heads.len() == jobs;
    is_complete.then(|| Request {
        heads,
        tail: Text::clone(tail),
        options: Text::clone(options),
        key,
    })
}

fn text(bytes: &[u8]) -> Text {
    String::from_utf8_lossy(bytes).into()
}
