//! Prints the table.

use std::fmt::Write;
use std::fs;

use crate::jobs::Jobs;
use crate::meter::Cost;
use crate::{How, OFFICIAL_ADD, Producer, QUEUE_ADD};

/// The costs of every producer, round by round.
pub struct Report {
    rows: Vec<(Producer, Vec<Cost>)>,
}

impl Report {
    pub fn new(producers: &[Producer]) -> Self {
        Self { rows: producers.iter().map(|&producer| (producer, Vec::new())).collect() }
    }

    pub fn add(&mut self, index: usize, cost: Cost) {
        self.rows[index].1.push(cost);
    }

    pub fn to_markdown(&self, jobs: &Jobs, redis: &str, node: &str) -> String {
        let rounds = self.rows[0].1.len();
        let official = version_of("bullmq-official");
        let mut text = format!(
            "CPU time for one job of {} bytes of data in microseconds: median of {rounds} \
             interleaved rounds of\n{} jobs, and the lowest and highest of them. {}.\nRedis \
             {redis}, {node}, bullmq-official {official}, Hookgate {}.\nThe official \
             libraries run their script once for each job, also in bulk.\n\n\
             | producer | jobs a call | Redis | of the bare commands | of `Queue.add` | producer | of \
             `bullmq-official` |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
            jobs.data_bytes,
            jobs.len(),
            machine(),
            hookgate::BUILD,
        );
        for (producer, costs) in &self.rows {
            let batch = match costs.iter().filter_map(|cost| cost.batch).collect::<Vec<_>>() {
                chosen if chosen.is_empty() => "1".to_owned(),
                chosen => format!("{:.1}", median(chosen)),
            };
            let bare = match *producer {
                Producer::Ours { batch, .. } => Some(Producer::Bare { batch }),
                _ => None,
            };
            let (redis, producing) = (|cost: &Cost| cost.redis, |cost: &Cost| cost.producer);
            writeln!(
                text,
                "| {} | {batch} | {} | {} | {:.2} | {} | {:.2} |",
                name(*producer),
                spread(costs, redis),
                bare.map_or_else(String::new, |bare| format!(
                    "{:.2}",
                    self.ratio(costs, bare, redis)
                )),
                self.ratio(costs, QUEUE_ADD, redis),
                spread(costs, producing),
                self.ratio(costs, OFFICIAL_ADD, producing),
            )
            .unwrap();
        }
        text
    }

    /// The median of the ratios within each round, because the machine was the same for both in a
    /// round.
    fn ratio(&self, costs: &[Cost], to: Producer, of: impl Fn(&Cost) -> f64) -> f64 {
        let (_, base) = self.rows.iter().find(|(producer, _)| *producer == to).unwrap();
        median(costs.iter().zip(base).map(|(cost, base)| of(cost) / of(base)).collect())
    }
}

fn name(producer: Producer) -> String {
    match producer {
        Producer::Ours { batch, events } => {
            let events = if events { "" } else { ", `events = false`" };
            format!("Hookgate, {batch} a batch{events}")
        }
        Producer::Bare { batch } => format!("bare commands, {batch} a write"),
        Producer::Node(how) => format!("Node {}", name_of_call(how, "Queue.add", "Queue.addBulk")),
        Producer::Official(how) => {
            format!("`bullmq-official` {}", name_of_call(how, "add", "add_bulk"))
        }
    }
}

fn name_of_call(how: How, add: &str, add_bulk: &str) -> String {
    match how {
        How::Add { callers: 1 } => format!("`{add}`, one after the other"),
        How::Add { callers } => format!("`{add}`, {callers} callers"),
        How::AddBulk { size } => format!("`{add_bulk}({size})`"),
    }
}

fn spread(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> String {
    let mut values: Vec<f64> = costs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let (lowest, highest) = (values[0], values[values.len() - 1]);
    format!("{:.2} ({lowest:.2}–{highest:.2})", median(values))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Processor, cores and kernel.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("CPU");
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

/// The version of a crate that this was built with.
fn version_of(name: &str) -> &'static str {
    let lock = include_str!("../../Cargo.lock");
    let behind = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).unwrap().1;
    behind.split_once('"').unwrap().0
}
