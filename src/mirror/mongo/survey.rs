//! What a look at the database finds, for `hookgate check --connect`.

use super::Mongo;
use super::source::{Position, Source};
use super::stream::Lost;
use crate::findings::Findings;
use crate::mirror::View;
use crate::mirror::document::DocumentKey;
use bson::{Document, RawDocument, doc};
use mongodb::Database;
use serde_json::json;
use std::time::Duration;

/// How long one operation may take: a person waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Malformed documents that are named.
const NAMED: usize = 10;

impl Mongo {
    /// Asks the server what it is, opens the streams of both collections and reads all of them, as the service does.
    pub async fn survey<W: View, U: View>(
        &self,
        workflows: (&str, &W),
        users: (&str, &U),
    ) -> Findings {
        let mut findings = Findings::default();
        let set = match self.survey_server(&mut findings).await {
            Ok(set) => set,
            Err(Lost { reason, .. }) => {
                findings.fact("server", self.settings.servers());
                findings.fault(format!("cannot be used: {reason}"));
                return findings;
            }
        };
        if let Some(database) = set {
            survey_collection(&database, "workflows", workflows, &mut findings).await;
            survey_collection(&database, "users", users, &mut findings).await;
        }
        findings
    }

    /// The database, if it can be followed.
    async fn survey_server(&self, findings: &mut Findings) -> Result<Option<Database>, Lost> {
        let database = self.connect().await?;
        let ask = async |command: Document| database.run_command(command).await;
        let hello = ask(doc! { "hello": 1 }).await?;
        let build = ask(doc! { "buildInfo": 1 }).await?;
        let set = hello.get_str("setName").ok();
        findings.fact("server", hello.get_str("me").ok());
        findings.fact("version", build.get_str("version").ok());
        findings.fact("replica_set", set.unwrap_or("none"));
        findings.fact("database", self.settings.database());
        if set.is_none() {
            findings
                .fault("is in no replica set: start mongod with --replSet and initiate it once");
        }
        Ok(set.is_some().then_some(database))
    }
}

async fn survey_collection<V: View>(
    database: &Database,
    role: &'static str,
    (name, view): (&str, &V),
    findings: &mut Findings,
) {
    let source = Source::new(database, name, LIMIT);
    let mut refused = |right: &str, lost: Lost| {
        findings.fault(format!("collection {name} ({right}): {}", lost.reason));
    };
    let mut session = match source.session().await {
        Ok(session) => session,
        Err(error) => return refused("session", error.into()),
    };
    let position = Position::Time(session.operation_time());
    if let Err(error) = source.open_stream(&position).await {
        refused("changeStream", error.into());
    }
    // It takes any right at all in the database, and is no need of the service.
    let exists = source.exists(&mut session).await.ok();
    let mut documents = 0_u64;
    let mut left_out = 0_u64;
    let mut reasons = Vec::new();
    let read = |key: DocumentKey, document: &RawDocument| {
        documents += 1;
        if let Err(malformed) = view.read(document) {
            left_out += 1;
            if reasons.len() < NAMED {
                reasons.push(format!("{key}: {malformed}"));
            }
        }
    };
    if let Err(error) = source.read_all(view.projection(), &mut session, read).await {
        return refused("find", error.into());
    }
    if exists == Some(false) {
        findings.warning(format!("collection {name} does not exist, and is served as empty"));
    }
    if left_out > 0 {
        findings.warning(format!("{left_out} documents of collection {name} are left out"));
    }
    let found = json!({
        "collection": name,
        "exists": exists,
        "documents": documents,
        "left_out": left_out,
        "reasons": reasons,
    });
    findings.fact(role, found);
}
