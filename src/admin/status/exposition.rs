//! Reads a page of metrics in Prometheus' text format. The status page takes its figures from
//! there, so that they equal those of `/metrics` and requests do nothing for them.

use std::collections::HashMap;

/// All series of a page, by name.
#[derive(Debug)]
pub(super) struct Exposition<'a>(HashMap<&'a str, Vec<Series<'a>>>);

#[derive(Debug)]
pub(super) struct Series<'a> {
    labels: Vec<(&'a str, String)>,
    value: &'a str,
}

impl<'a> Exposition<'a> {
    pub(super) fn read(page: &'a str) -> Self {
        let mut names: HashMap<&str, Vec<Series<'_>>> = HashMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, series)) = read_line(line) {
                names.entry(name).or_default().push(series);
            }
        }
        Self(names)
    }

    pub(super) fn all(&self, name: &str) -> &[Series<'a>] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<&Series<'a>> {
        let has = |series: &&Series<'a>, (label, value): &(&str, &str)| {
            series.label(label) == Some(*value)
        };
        let mut all = self.all(name).iter();
        all.find(|series| labels.iter().all(|label| has(series, label)))
    }

    /// The value of the first series with these labels; `None` if it is not finite.
    pub(super) fn number(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let number = self.find(name, labels)?.value.parse::<f64>().ok();
        number.filter(|number| number.is_finite())
    }

    /// Like [`Self::number`], for a whole number.
    pub(super) fn count(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        self.find(name, labels)?.count()
    }
}

impl Series<'_> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let mut labels = self.labels.iter();
        labels.find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn count(&self) -> Option<u64> {
        self.value.parse().ok()
    }
}

fn read_line(line: &str) -> Option<(&str, Series<'_>)> {
    let (series, value) = line.rsplit_once(' ')?;
    let Some((name, mut rest)) = series.split_once('{') else {
        return Some((series, Series { labels: Vec::new(), value }));
    };
    let mut labels = Vec::new();
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let (unquoted, after) = unquote(quoted)?;
        labels.push((label.trim_start_matches(','), unquoted));
        rest = after;
    }
    Some((name, Series { labels, value }))
}

/// The value before the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_values_are_read() {
        let page = "# HELP a b\n# TYPE a counter\na{code=\"x\",queue=\"q \\\"1\\\" {\\\\,\\n}\"} 7\n\
                    a{code=\"y\",queue=\"\"} 8\nb 0.5\nc NaN\nd{le=\"+Inf\"} 3\n";
        let read = Exposition::read(page);
        assert_eq!(read.count("a", &[("code", "x")]), Some(7));
        assert_eq!(read.count("a", &[("queue", "q \"1\" {\\,\n}"), ("code", "x")]), Some(7));
        assert_eq!(read.count("a", &[("code", "y"), ("queue", "")]), Some(8));
        assert_eq!(read.count("a", &[("code", "z")]), None);
        assert_eq!((read.number("b", &[]), read.count("b", &[])), (Some(0.5), None));
        assert_eq!(read.number("c", &[]), None, "not a number");
        assert_eq!(read.all("d").first().and_then(|series| series.label("le")), Some("+Inf"));
        assert!(read.all("e").is_empty());
    }
}
