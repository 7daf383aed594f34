//! The status of the process: `/status.json`, and the page that shows it to people.
//!
//! Everything is read when somebody asks, or once a step for the history. Requests of callers do
//! nothing for it.

mod clip;
mod exposition;
mod hints;
mod history;
mod index;
mod report;
mod sources;
mod totals;

pub use crate::admin::status::index::{CollectionSource, DocumentsSource};
pub use crate::admin::status::sources::StatusSources;

pub(super) use crate::admin::status::index::age;

use crate::admin::status::exposition::Exposition;
use crate::admin::status::history::{History, STEP};
use crate::admin::status::report::{Process, Report};
use crate::admin::status::totals::Totals;
use crate::process::lifecycle::Readiness;
use tokio::time::{Instant, MissedTickBehavior};

/// The page for people. It fetches `/status.json` and needs nothing else.
pub(super) const PAGE: &str = concat!(
    include_str!("page/head.html"),
    "<style>",
    include_str!("page/style.css"),
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    include_str!("page/script.js"),
    "</script>\n</html>\n",
);

/// Forbids everything, such as frames, forms and other hosts, except for the style and the script
/// with these digests (SHA-256), the icon within the page, and requests to this port.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    style-src 'sha256-FaLiLSwiIfyThEHSw4y6b6qqtcfevwtAZJ+gfOkZH+w='; \
    script-src 'sha256-O+nv1a7UF870hGCw5P3vlGCw/4SNtXXiRrLkKutTmw8='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The status of the process, with its last minutes.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) sources: StatusSources,
    history: History,
    started: Instant,
}

impl Status {
    pub(super) fn new(sources: StatusSources) -> Self {
        Self { sources, history: History::default(), started: Instant::now() }
    }

    /// Ends a step of the history every [`STEP`]. `render` returns the page of metrics. Never
    /// returns.
    pub(super) async fn record(&self, render: impl Fn() -> String) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            let totals = Totals::read(&Exposition::read(&render()));
            self.history.record(now, totals);
        }
    }

    /// The document of `/status.json`. `metrics` is the page of metrics at this moment.
    pub(super) fn json(&self, readiness: &Readiness, is_alive: bool, metrics: &str) -> String {
        let metrics = Exposition::read(metrics);
        let totals = Totals::read(&metrics);
        let history = self.history.report(Instant::now(), &totals);
        let uptime = self.started.elapsed();
        let process = Process { problems: readiness.problems(), is_alive, uptime };
        let report = Report::new(&self.sources, &process, (&totals, history), &metrics);
        serde_json::to_string(&report).expect("a report has only strings and numbers")
    }
}
