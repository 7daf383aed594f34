//! `hookgate check --connect`: a look at the servers that a configuration names.

use crate::auth::{Callers, UsersView};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::mirror::View;
use crate::mirror::mongo::{CannotSurvey, Mongo};
use crate::triggers::{Source, TriggerIndex, WorkflowsView};
use std::fmt::Write;
use std::sync::Arc;

/// What was found, as lines for people, and whether all is well.
#[derive(Debug, Default)]
pub struct Findings {
    pub text: String,
    pub are_good: bool,
}

impl Findings {
    fn say(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.text, "  {name:<20} {value}").expect("writing into memory succeeds");
    }
}

/// Looks at MongoDB, if documents come from there.
pub async fn connect(config: &Config) -> Findings {
    let mut findings = Findings { text: String::new(), are_good: true };
    if config.triggers.source == Source::MongoDb
        && let Err(error) = look_at_mongodb(config, &mut findings).await
    {
        findings.say("mongodb", format!("cannot be used: {error}"));
        findings.are_good = false;
    }
    findings
}

async fn look_at_mongodb(config: &Config, findings: &mut Findings) -> Result<(), CannotSurvey> {
    let mongo = Mongo::new(config.mongodb.clone());
    let server = mongo.survey_server().await?;
    findings.say("mongodb", format!("version {}", server.version));
    let Some(set) = server.set else {
        findings.say("replica set", "none: start mongod with --replSet and initiate it once");
        findings.are_good = false;
        return Ok(());
    };
    findings.say("replica set", set);
    // The views are asked only to read; nobody looks into their indexes.
    let metrics = Metrics::new("check", "check").expect("the buckets are constants");
    let staleness = config.triggers.max_staleness;
    let index = TriggerIndex::new(staleness);
    let workflows = WorkflowsView::new(&config.triggers, &index, Arc::clone(&metrics));
    survey(&mongo, &config.triggers.collection, &workflows, findings).await?;
    let callers = Arc::new(Callers::new(staleness));
    let users = UsersView::new(config.users.clone(), &callers, metrics);
    survey(&mongo, &config.users.collection, &users, findings).await
}

async fn survey<V: View>(
    mongo: &Mongo,
    collection: &str,
    view: &V,
    findings: &mut Findings,
) -> Result<(), CannotSurvey> {
    let found = mongo.survey(collection, view).await?;
    if !found.exists {
        findings.say(collection, "does not exist, and is served as empty");
        return Ok(());
    }
    let malformed = found.malformed;
    findings.say(collection, format!("{} documents, {malformed} left out", found.documents));
    for (id, reason) in found.named {
        findings.say("", format!("{id}: {reason}"));
    }
    Ok(())
}
