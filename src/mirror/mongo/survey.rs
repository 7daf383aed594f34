//! The findings about the database, for `hookgate check --connect`.

use crate::mirror::MirroredCollection;
use crate::mirror::document::DocumentKey;
use crate::mirror::mongo::client::{Connected, Mongo};
use crate::mirror::mongo::lost::StreamLoss;
use crate::mirror::mongo::source::{CollectionSource, Position};
use crate::mirror::path_survey::FIRST_DOCUMENTS;
use crate::mirror::query::Query;
use crate::mirror::survey::CollectionSurvey;
use crate::process::findings::Findings;
use bson::{Document, RawDocument, RawDocumentBuf, doc};
use mongodb::{ClientSession, Database};
use std::time::Duration;

/// The bytes of the first documents that are looked at.
const FIRST_BYTES: usize = 64 << 20;

/// How long one operation may take. A person waits for the result.
const LIMIT: Duration = Duration::from_secs(60);

impl Mongo {
    /// Identifies the server, then opens the change streams of both collections and reads all their
    /// documents, as the service does.
    pub async fn survey<W: MirroredCollection, U: MirroredCollection>(
        &self,
        workflows: (&str, W),
        users: (&str, U),
    ) -> Findings {
        let mut findings = Findings::default();
        let connected = self.connect().await;
        let set = match &connected {
            Ok(connected) => self.survey_server(connected, &mut findings).await,
            Err(lost) => Err(StreamLoss::transient(lost.reason.clone())),
        };
        match (set, &connected) {
            (Ok(true), Ok(Connected { database, .. })) => {
                survey_collection(database, workflows, &mut findings).await;
                survey_collection(database, users, &mut findings).await;
            }
            (Ok(_), _) => {}
            (Err(lost), connected) => {
                let StreamLoss { reason, .. } =
                    lost.with_servers(connected.as_ref().ok().map(|connected| &connected.servers));
                findings.fact("server", self.settings.servers());
                findings.fault(format!("cannot be used: {reason}"));
            }
        }
        findings
    }

    /// Whether the database can be followed.
    async fn survey_server(
        &self,
        Connected { database, .. }: &Connected<Database>,
        findings: &mut Findings,
    ) -> Result<bool, StreamLoss> {
        let ask = async |command: Document| database.run_command(command).await;
        let hello = ask(doc! { "hello": 1 }).await?;
        let build = ask(doc! { "buildInfo": 1 }).await?;
        let set = hello.get_str("setName").ok();
        findings.fact("server", hello.get_str("me").ok());
        findings.fact("version", build.get_str("version").ok());
        findings.fact("replica_set", set.unwrap_or("none"));
        findings.fact("database", self.settings.database());
        if set.is_none() {
            findings.fault(
                "is in no replica set: start mongod with --replSet and initiate the set once",
            );
        }
        Ok(set.is_some())
    }
}

async fn survey_collection<C: MirroredCollection>(
    database: &Database,
    (name, collection): (&str, C),
    findings: &mut Findings,
) {
    let source = CollectionSource::new(database, name, LIMIT);
    let mut fault = |right: &str, lost: StreamLoss| {
        findings.fault(format!("collection {name} ({right}): {}", lost.reason));
    };
    let mut session = match source.session().await {
        Ok(session) => session,
        Err(error) => return fault("session", error.into()),
    };
    let position = Position::Time(session.operation_time());
    if let Err(error) = source.open_stream(&position).await {
        fault("changeStream", error.into());
    }
    // Needs any right in the database. The service does not depend on it.
    let exists = source.exists(&mut session).await.ok();
    let (query, filter) = (Query::from_collection(&collection), collection.filter());
    let mut survey = CollectionSurvey::new(collection);
    let visit = |key: DocumentKey, document: &RawDocument| survey.visit(&key, Ok(document));
    if let Err(error) = source.read_all(query, &mut session, visit).await {
        return fault("find", error.into());
    }
    let is_filtered = !filter.is_empty();
    let first = match read_first(&source, filter, &mut session).await {
        Ok(first) => first,
        Err(error) => return fault("find", error.into()),
    };
    let first: Vec<&RawDocument> = first.iter().map(|document| &**document).collect();
    survey.visit_first(&first);
    if is_filtered && survey.documents() == 0 {
        let others = read_first(&source, Document::new(), &mut session).await;
        if others.is_ok_and(|others| !others.is_empty()) {
            findings.warning(format!("no document of collection {name} matches its filter"));
        }
    }
    survey.finish(name, exists, findings);
}

/// Reads the first whole documents that match a filter.
async fn read_first(
    source: &CollectionSource<Database>,
    filter: Document,
    session: &mut ClientSession,
) -> mongodb::error::Result<Vec<RawDocumentBuf>> {
    let (mut first, mut bytes) = (Vec::new(), 0);
    let visit = |_, document: &RawDocument| {
        bytes += document.as_bytes().len();
        if bytes <= FIRST_BYTES {
            first.push(document.to_owned());
        }
    };
    source.read_first(filter, FIRST_DOCUMENTS, session, visit).await?;
    Ok(first)
}
