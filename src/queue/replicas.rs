//! Replicas, as `INFO` of their primary lists them. One that is not in sync becomes primary without the latest jobs.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// A replica acknowledges every second what it has.
const LATE: Duration = Duration::from_secs(10);

/// The state of a replica that has loaded the data and is sent every write.
const ONLINE: &str = "online";

/// What a primary says of its replicas. What `INFO` does not say is not known, and no fault.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    connected: Option<usize>,
    listed: Vec<Replica>,
}

#[derive(Debug, Default)]
struct Replica {
    address: String,
    /// `online`, or how far its first synchronization has got.
    state: String,
    /// Of the writes of the primary, up to where it has acknowledged them.
    offset: Option<u64>,
    /// Seconds since its last acknowledgement.
    lag: Option<u64>,
    /// Whether it lacks writes that are older than [`LATE`].
    is_behind: bool,
}

impl Replica {
    /// Of a line such as `slave0:ip=10.0.0.7,port=6379,state=online,offset=42,lag=0`.
    fn read(line: &str) -> Self {
        let fields: HashMap<&str, &str> =
            line.split(',').filter_map(|field| field.split_once('=')).collect();
        let text = |key: &str| fields.get(key).copied().unwrap_or_default();
        Self {
            address: format!("{}:{}", text("ip"), text("port")),
            state: text("state").to_owned(),
            offset: text("offset").parse().ok(),
            lag: text("lag").parse().ok(),
            is_behind: false,
        }
    }

    fn is_silent(&self) -> bool {
        self.lag.is_some_and(|lag| lag > LATE.as_secs())
    }

    /// Whether WAIT can count it soon.
    fn acknowledges(&self) -> bool {
        matches!(self.state.as_str(), ONLINE | "") && !self.is_silent()
    }

    /// Why it is not in sync. The same words as long as the cause is the same.
    fn fault(&self) -> Option<String> {
        let seconds = LATE.as_secs();
        let why = match self.state.as_str() {
            ONLINE | "" if self.is_silent() => {
                format!("has acknowledged nothing for over {seconds} s")
            }
            ONLINE | "" if self.is_behind => format!("is more than {seconds} s behind"),
            ONLINE | "" => return None,
            state => format!("is still loading the data ({state})"),
        };
        Some(format!("replica {} {why}: a failover to it loses jobs", self.address))
    }
}

impl Replicas {
    pub(super) fn read(info: &HashMap<String, String>) -> Self {
        let connected = info.get("connected_slaves").and_then(|count| count.parse().ok());
        let lines =
            (0..connected.unwrap_or(0)).filter_map(|index| info.get(&format!("slave{index}")));
        Self { connected, listed: lines.map(|line| Replica::read(line)).collect() }
    }

    /// Compares them with what the primary had written some time ago.
    pub(super) fn compare(&mut self, written: Option<u64>) {
        for replica in &mut self.listed {
            replica.is_behind = written.zip(replica.offset).is_some_and(|(all, its)| its < all);
        }
    }

    pub(super) fn connected(&self) -> Option<usize> {
        self.connected
    }

    /// How many of them WAIT can count.
    pub(super) fn acknowledging(&self) -> Option<usize> {
        let others = self.listed.iter().filter(|replica| !replica.acknowledges()).count();
        Some(self.connected?.saturating_sub(others))
    }

    pub(super) fn out_of_sync(&self) -> usize {
        self.faults().count()
    }

    pub(super) fn in_sync(&self) -> usize {
        self.connected.unwrap_or(0).saturating_sub(self.out_of_sync())
    }

    /// A sentence for each that is not in sync.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        self.listed.iter().filter_map(Replica::fault)
    }
}

/// How much a primary had written, and when that was read.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Which history of writes the offsets belong to. A failover begins another one.
    history: String,
    offsets: VecDeque<(Instant, u64)>,
}

impl Written {
    /// Notes what `INFO` says now, and answers what was written before the last [`LATE`]. By time and not by bytes, so that
    /// the bound holds for every rate of writes.
    pub(super) fn note(&mut self, info: &HashMap<String, String>, now: Instant) -> Option<u64> {
        let history = info.get("master_replid")?;
        let offset = info.get("master_repl_offset")?.parse().ok()?;
        if *history != self.history || self.offsets.back().is_some_and(|(_, last)| *last > offset) {
            self.history.clone_from(history);
            self.offsets.clear();
        }
        self.offsets.push_back((now, offset));
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= LATE;
        while self.offsets.get(1).is_some_and(is_old) {
            self.offsets.pop_front();
        }
        self.offsets.front().filter(|first| is_old(first)).map(|(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(fields: &[(&str, &str)]) -> HashMap<String, String> {
        fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_replica_is_in_sync_if_it_is_online_and_acknowledges() {
        let fields = [
            ("connected_slaves", "5"),
            ("slave0", "ip=10.0.0.1,port=1,state=online,offset=42,lag=1"),
            ("slave1", "ip=10.0.0.2,port=2,state=wait_bgsave,offset=0,lag=0"),
            ("slave2", "ip=10.0.0.3,port=3,state=online,offset=42,lag=11,type=replica"),
            ("slave3", "ip=10.0.0.4,port=4,state=online,offset=41,lag=0"),
        ];
        let mut replicas = Replicas::read(&info(&fields));
        // One is not listed, of which nothing is known.
        assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (3, 2));
        replicas.compare(Some(42));
        assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (2, 3));
        assert_eq!(replicas.acknowledging(), Some(3));
        let faults: Vec<String> = replicas.faults().collect();
        let loses = ": a failover to it loses jobs";
        assert_eq!(
            faults,
            [
                format!("replica 10.0.0.2:2 is still loading the data (wait_bgsave){loses}"),
                format!("replica 10.0.0.3:3 has acknowledged nothing for over 10 s{loses}"),
                format!("replica 10.0.0.4:4 is more than 10 s behind{loses}"),
            ]
        );
    }

    #[test]
    fn what_is_not_said_is_no_fault() {
        for fields in [&[][..], &[("connected_slaves", "0")], &[("connected_slaves", "x")]] {
            let replicas = Replicas::read(&info(fields));
            assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (0, 0));
        }
        let replicas = Replicas::read(&info(&[("connected_slaves", "1"), ("slave0", "?")]));
        assert_eq!((replicas.in_sync(), replicas.acknowledging()), (1, Some(1)));
    }

    #[test]
    fn what_was_written_is_compared_within_one_history() {
        let start = Instant::now();
        let mut written = Written::default();
        let mut note = |second: u64, history: &str, offset: &str| {
            let fields = [("master_replid", history), ("master_repl_offset", offset)];
            written.note(&info(&fields), start + Duration::from_secs(second))
        };
        assert_eq!(note(0, "a", "100"), None);
        assert_eq!(note(9, "a", "900"), None);
        assert_eq!(note(10, "a", "1000"), Some(100));
        assert_eq!(note(18, "a", "1800"), Some(100));
        assert_eq!(note(19, "a", "1900"), Some(900));
        // A failover, and a server that has begun again.
        assert_eq!(note(20, "b", "1900"), None);
        assert_eq!(note(30, "b", "2000"), Some(1900));
        assert_eq!(note(31, "b", "5"), None);
    }
}
