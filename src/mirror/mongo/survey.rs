//! What a look at the database finds, for `hookgate check --connect`.

use super::source::{Position, Source};
use super::stream::Lost;
use super::{Connected, Mongo};
use crate::findings::Findings;
use crate::mirror::View;
use crate::mirror::document::DocumentKey;
use crate::mirror::survey::Survey;
use bson::{Document, RawDocument, doc};
use mongodb::Database;
use std::time::Duration;

/// How long one operation may take: a person waits for it.
const LIMIT: Duration = Duration::from_secs(60);

impl Mongo {
    /// Asks the server what it is, opens the streams of both collections and reads all of them, as the service does.
    pub async fn survey<W: View, U: View>(
        &self,
        workflows: (&str, &mut W),
        users: (&str, &mut U),
    ) -> Findings {
        let mut findings = Findings::default();
        let connected = self.connect().await;
        let set = match &connected {
            Ok(connected) => self.survey_server(connected, &mut findings).await,
            Err(lost) => Err(Lost::passing(lost.reason.clone())),
        };
        match (set, &connected) {
            (Ok(true), Ok(Connected { database, .. })) => {
                survey_collection(database, workflows, &mut findings).await;
                survey_collection(database, users, &mut findings).await;
            }
            (Ok(_), _) => {}
            (Err(lost), connected) => {
                let Lost { reason, .. } = lost.with_servers(connected.as_ref().ok());
                findings.fact("server", self.settings.servers());
                findings.fault(format!("cannot be used: {reason}"));
            }
        }
        findings
    }

    /// Whether the database can be followed.
    async fn survey_server(
        &self,
        Connected { database, .. }: &Connected,
        findings: &mut Findings,
    ) -> Result<bool, Lost> {
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
        Ok(set.is_some())
    }
}

async fn survey_collection<V: View>(
    database: &Database,
    (name, view): (&str, &mut V),
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
    let projection = view.projection();
    let mut survey = Survey::new(view);
    let see = |key: DocumentKey, document: &RawDocument| survey.see(&key, Ok(document));
    if let Err(error) = source.read_all(projection, &mut session, see).await {
        return refused("find", error.into());
    }
    survey.finish(name, exists, findings);
}
