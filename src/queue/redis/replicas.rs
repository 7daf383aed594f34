//! Replicas, as `INFO` of their primary lists them. A replica that is not in sync lacks the latest
//! jobs if it becomes the primary.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// How far a replica in sync may lag. A replica acknowledges every second what it has.
const MAX_LAG: Duration = Duration::from_secs(10);

/// The state of a replica that has loaded the data and receives every write.
const ONLINE: &str = "online";

/// The replicas of a primary. A value that `INFO` does not report is unknown, which is not a fault.
#[derive(Debug, Default)]
pub(in crate::queue) struct Replicas {
    connected: Option<usize>,
    listed: Vec<Replica>,
}

#[derive(Debug, Default)]
struct Replica {
    address: String,
    /// `online`, or the stage of the initial synchronization.
    state: String,
    /// The replication offset that the replica has acknowledged.
    offset: Option<u64>,
    /// Seconds since the last acknowledgement.
    lag: Option<u64>,
    /// Whether the replica lacks writes that are older than [`MAX_LAG`].
    is_behind: bool,
}

impl Replica {
    /// Parses the value of a line such as
    /// `slave0:ip=10.0.0.7,port=6379,state=online,offset=42,lag=0`.
    fn read(line: &str) -> Self {
        let fields: HashMap<&str, &str> =
            line.split(',').filter_map(|field| field.split_once('=')).collect();
        let field = |key: &str| fields.get(key).copied().unwrap_or_default();
        Self {
            address: format!("{}:{}", field("ip"), field("port")),
            state: field("state").to_owned(),
            offset: field("offset").parse().ok(),
            lag: field("lag").parse().ok(),
            is_behind: false,
        }
    }

    fn is_silent(&self) -> bool {
        self.lag.is_some_and(|lag| lag > MAX_LAG.as_secs())
    }

    /// Whether WAIT can count this replica soon.
    fn acknowledges(&self) -> bool {
        matches!(self.state.as_str(), ONLINE | "") && !self.is_silent()
    }

    /// Why the replica is not in sync. The string is constant while the cause is, so that it is
    /// logged once.
    fn fault(&self) -> Option<String> {
        let seconds = MAX_LAG.as_secs();
        let cause = match self.state.as_str() {
            ONLINE | "" if self.is_silent() => {
                format!("has acknowledged nothing for over {seconds} s")
            }
            ONLINE | "" if self.is_behind => format!("is more than {seconds} s behind"),
            ONLINE | "" => return None,
            state => format!("is still loading the data ({state})"),
        };
        Some(format!("replica {} {cause}: a failover to it would lose jobs", self.address))
    }
}

impl Replicas {
    pub(in crate::queue) fn read(info: &HashMap<String, String>) -> Self {
        let connected = info.get("connected_slaves").and_then(|count| count.parse().ok());
        let lines =
            (0..connected.unwrap_or(0)).filter_map(|index| info.get(&format!("slave{index}")));
        Self { connected, listed: lines.map(|line| Replica::read(line)).collect() }
    }

    /// Compares the offsets of the replicas with an earlier offset of the primary.
    pub(in crate::queue) fn compare(&mut self, written: Option<u64>) {
        for replica in &mut self.listed {
            let offsets = written.zip(replica.offset);
            replica.is_behind = offsets.is_some_and(|(written, replicated)| replicated < written);
        }
    }

    pub(in crate::queue) fn connected(&self) -> Option<usize> {
        self.connected
    }

    /// Number of replicas that WAIT can count.
    pub(in crate::queue) fn acknowledging(&self) -> Option<usize> {
        let others = self.listed.iter().filter(|replica| !replica.acknowledges()).count();
        Some(self.connected?.saturating_sub(others))
    }

    pub(in crate::queue) fn out_of_sync(&self) -> usize {
        self.faults().count()
    }

    pub(in crate::queue) fn in_sync(&self) -> usize {
        self.connected.unwrap_or(0).saturating_sub(self.out_of_sync())
    }

    /// A sentence for each replica that is not in sync.
    pub(in crate::queue) fn faults(&self) -> impl Iterator<Item = String> {
        self.listed.iter().filter_map(Replica::fault)
    }
}

/// The recent replication offsets of a primary, each with the time at which it was read.
#[derive(Debug, Default)]
pub(in crate::queue) struct WriteOffset {
    /// The replication id that the offsets belong to. A failover starts a new one.
    replication_id: String,
    offsets: VecDeque<(Instant, u64)>,
}

impl WriteOffset {
    /// Records the current offset in `INFO`, and returns the offset of [`MAX_LAG`] ago. The bound
    /// is a time and not a number of bytes, so that it holds for every rate of writes.
    pub(in crate::queue) fn record(
        &mut self,
        info: &HashMap<String, String>,
        now: Instant,
    ) -> Option<u64> {
        let replication_id = info.get("master_replid")?;
        let offset = info.get("master_repl_offset")?.parse().ok()?;
        let has_restarted = self.offsets.back().is_some_and(|(_, last)| *last > offset);
        if *replication_id != self.replication_id || has_restarted {
            self.replication_id.clone_from(replication_id);
            self.offsets.clear();
        }
        self.offsets.push_back((now, offset));
        let is_old = |(at, _): &(Instant, u64)| now.duration_since(*at) >= MAX_LAG;
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
        // The fifth replica is not listed, so nothing is known of it and it counts as in sync.
        assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (3, 2));
        replicas.compare(Some(42));
        assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (2, 3));
        assert_eq!(replicas.acknowledging(), Some(3));
        let faults: Vec<String> = replicas.faults().collect();
        let loses = ": a failover to it would lose jobs";
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
    fn missing_values_are_not_faults() {
        for fields in [&[][..], &[("connected_slaves", "0")], &[("connected_slaves", "x")]] {
            let replicas = Replicas::read(&info(fields));
            assert_eq!((replicas.in_sync(), replicas.out_of_sync()), (0, 0));
        }
        let replicas = Replicas::read(&info(&[("connected_slaves", "1"), ("slave0", "?")]));
        assert_eq!((replicas.in_sync(), replicas.acknowledging()), (1, Some(1)));
    }

    #[test]
    fn offsets_are_compared_within_one_replication_id() {
        let start = Instant::now();
        let mut written = WriteOffset::default();
        let mut record = |second: u64, replication_id: &str, offset: &str| {
            let fields = [("master_replid", replication_id), ("master_repl_offset", offset)];
            written.record(&info(&fields), start + Duration::from_secs(second))
        };
        assert_eq!(record(0, "a", "100"), None);
        assert_eq!(record(9, "a", "900"), None);
        assert_eq!(record(10, "a", "1000"), Some(100));
        assert_eq!(record(18, "a", "1800"), Some(100));
        assert_eq!(record(19, "a", "1900"), Some(900));
        // A failover, then a restart of the server.
        assert_eq!(record(20, "b", "1900"), None);
        assert_eq!(record(30, "b", "2000"), Some(1900));
        assert_eq!(record(31, "b", "5"), None);
    }
}
