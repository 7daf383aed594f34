//! What a look at the database finds, for `hookgate check --connect`.

use super::Mongo;
use super::source::{Position, Source};
use super::stream::Lost;
use crate::mirror::View;
use bson::{Document, doc};
use std::fmt;
use std::time::Duration;

/// How long one operation may take: a person waits for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Malformed documents that are named.
const NAMED: usize = 10;

/// What was found of the server.
#[derive(Debug)]
pub struct ServerSurvey {
    pub version: String,
    /// Its replica set; `None`: it is in none, and cannot be followed.
    pub set: Option<String>,
}

/// What was found of a collection.
#[derive(Debug, Default)]
pub struct CollectionSurvey {
    pub exists: bool,
    pub documents: usize,
    pub malformed: usize,
    /// The first of them: id and reason.
    pub named: Vec<(String, String)>,
}

/// Why it could not be looked at.
#[derive(Debug)]
pub struct CannotSurvey(String);

impl fmt::Display for CannotSurvey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for CannotSurvey {}

impl<E: Into<Lost>> From<E> for CannotSurvey {
    fn from(error: E) -> Self {
        Self(error.into().0)
    }
}

impl Mongo {
    pub async fn survey_server(&self) -> Result<ServerSurvey, CannotSurvey> {
        let database = self.connect().await?;
        let ask = async |command: Document| database.run_command(command).await;
        let hello = ask(doc! { "hello": 1 }).await?;
        let build = ask(doc! { "buildInfo": 1 }).await?;
        Ok(ServerSurvey {
            version: build.get_str("version").unwrap_or("unknown").to_owned(),
            set: hello.get_str("setName").ok().map(str::to_owned),
        })
    }

    /// Opens the stream of a collection and reads all of it, as the service does.
    pub async fn survey<V: View>(
        &self,
        collection: &str,
        view: &V,
    ) -> Result<CollectionSurvey, CannotSurvey> {
        let source = Source::new(&self.connect().await?, collection, LIMIT);
        let mut session = source.session().await?;
        source.open_stream(&Position::Time(session.operation_time())).await?;
        let exists = source.exists(&mut session).await?;
        let mut found = CollectionSurvey { exists, ..CollectionSurvey::default() };
        let read = |key: crate::mirror::document::DocumentKey, document: &bson::RawDocument| {
            found.documents += 1;
            if let Err(malformed) = view.read(document) {
                found.malformed += 1;
                if found.named.len() < NAMED {
                    found.named.push((key.to_string(), malformed.to_string()));
                }
            }
        };
        source.read_all(view.projection(), &mut session, read).await?;
        Ok(found)
    }
}
