//! Prometheus text, parsed.

use std::collections::BTreeMap;

/// One sample: its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All samples of a scrape, by metric name.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: BTreeMap<String, Vec<Sample>>,
}

impl Metrics {
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, sample) = parse_line(line).unwrap_or_else(|| panic!("not a sample: {line}"));
            metrics.samples.entry(name).or_default().push(sample);
        }
        metrics
    }

    /// The value of the one series with exactly these labels. The label `queue` may be left out if
    /// there is one queue.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: BTreeMap<String, String> =
            labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let is_wanted = |sample: &&Sample| {
            let mut labels = sample.labels.clone();
            if !wanted.contains_key("queue") {
                labels.remove("queue");
            }
            labels == wanted
        };
        let mut found = self.series(name).iter().filter(is_wanted);
        let sample = found.next()?;
        assert!(found.next().is_none(), "{name} {labels:?} is not one series");
        Some(sample.value)
    }

    /// Like [`Metrics::get`], for a series that must be there.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels)
            .unwrap_or_else(|| panic!("no series {name} {labels:?} in {:#?}", self.samples))
    }

    /// `hookgate_requests_total` of one code.
    pub fn requests(&self, code: &str) -> f64 {
        self.value("hookgate_requests_total", &[("code", code)])
    }

    /// Every series of a name.
    pub fn series(&self, name: &str) -> &[Sample] {
        self.samples.get(name).map_or(&[], Vec::as_slice)
    }

    /// The sum over every series of a name.
    pub fn sum(&self, name: &str) -> f64 {
        self.series(name).iter().map(|sample| sample.value).sum()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }
}

fn parse_line(line: &str) -> Option<(String, Sample)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let end = closing_quote(after)?;
            labels.insert(label.trim().to_owned(), after.get(..end)?.to_owned());
            rest = after.get(end + 1..)?;
        }
        rest = rest.get(1..)?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}
