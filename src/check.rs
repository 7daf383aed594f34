//! `hookgate check`: what a configuration comes to, and what is at the servers that it names.

use crate::auth::{Callers, UsersView};
use crate::config::Config;
use crate::findings::Findings;
use crate::metrics::Metrics;
use crate::mirror::mongo::Mongo;
use crate::queue;
use crate::settings::Fault;
use crate::triggers::{Source, TriggerIndex, WorkflowsView};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// What was found. The names of its members are for scripts, and stay.
#[derive(Debug, Serialize)]
pub struct Report {
    config: String,
    ok: bool,
    /// Of the configuration.
    faults: Vec<Fault>,
    /// Keys that the environment sets.
    from_environment: BTreeSet<String>,
    mongodb: Option<Findings>,
    redis: Option<Findings>,
}

impl Report {
    /// Of a configuration alone.
    pub fn new(path: &Path, config: &Result<Config, Vec<Fault>>) -> Self {
        let (faults, from_environment) = match config {
            Ok(config) => (Vec::new(), config.from_environment.clone()),
            Err(faults) => (faults.clone(), BTreeSet::new()),
        };
        let (config, ok) = (path.display().to_string(), faults.is_empty());
        Self { config, ok, faults, from_environment, mongodb: None, redis: None }
    }

    /// Looks at Redis, and at MongoDB if documents come from there.
    pub async fn connect(&mut self, config: &Config) {
        let (mongodb, redis) =
            tokio::join!(Box::pin(look_at_mongodb(config)), Box::pin(queue::survey(&config.queue)));
        self.mongodb = mongodb;
        self.redis = Some(redis);
        self.ok = [&self.mongodb, &self.redis].into_iter().flatten().all(Findings::are_good);
    }

    /// Whether nothing was found that would not work.
    pub fn is_ok(&self) -> bool {
        self.ok
    }
}

async fn look_at_mongodb(config: &Config) -> Option<Findings> {
    if config.triggers.source != Source::MongoDb {
        return None;
    }
    // The views are asked only to read; nobody looks into their indexes.
    let metrics = Metrics::new("check", "check").expect("the buckets are constants");
    let staleness = config.triggers.max_staleness;
    let index = TriggerIndex::new(staleness);
    let workflows = WorkflowsView::new(&config.triggers, &index, Arc::clone(&metrics));
    let callers = Arc::new(Callers::new(staleness));
    let users = UsersView::new(config.users.clone(), &callers, metrics);
    let workflows = (config.triggers.collection.as_str(), &workflows);
    let users = (config.users.collection.as_str(), &users);
    Some(Mongo::new(config.mongodb.clone()).survey(workflows, users).await)
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, faults, from_environment, mongodb, redis, .. } = self;
        if !faults.is_empty() {
            write!(formatter, "{config}: {} fault(s)", faults.len())?;
            return faults.iter().try_for_each(|fault| write!(formatter, "\n  {fault}"));
        }
        write!(formatter, "{config}: no faults")?;
        for key in from_environment {
            write!(formatter, "\n  {key} is set by the environment")?;
        }
        for (name, findings) in [("MongoDB", mongodb), ("Redis", redis)] {
            if let Some(findings) = findings {
                write!(formatter, "\n{name}\n{}", findings.to_string().trim_end())?;
            }
        }
        Ok(())
    }
}
