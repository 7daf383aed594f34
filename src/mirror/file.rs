//! Documents from a JSON file that is followed for changes.

use crate::files::text_file;
use crate::files::watched_file::{POLL_INTERVAL, WatchedFile};
use crate::metrics::{Collection, LoadReason};
use crate::mirror::background::background;
use crate::mirror::document::{DocumentKey, Malformed};
use crate::mirror::path_survey::FIRST_DOCUMENTS;
use crate::mirror::survey::CollectionSurvey;
use crate::mirror::{Mirror, MirroredCollection, READ_AT_ONCE};
use crate::process::findings::Findings;
use crate::process::lifecycle::Condition;
use anyhow::Context;
use bson::{Bson, RawBsonRef, RawDocumentBuf};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::task::yield_now;
use tokio::time::Instant;

/// Keeps a mirror equal to a file: `{"workflows": [...], "users": [...]}`. Never returns.
pub async fn follow<C: MirroredCollection>(path: PathBuf, mut mirror: Mirror<C>) {
    let mut file = WatchedFile::new(path);
    let mut reason = LoadReason::Start;
    loop {
        match refresh(&mut file, &mut mirror, reason).await {
            Ok(()) => {
                reason = LoadReason::FileChanged;
                mirror.mark_current(Instant::now());
                mirror.report(Condition::Ready);
            }
            Err(error) => {
                file.forget();
                mirror.report(if mirror.freshness.is_loaded() {
                    Condition::Degraded(vec![format!("{error:#}; the last good file is served")])
                } else {
                    Condition::NotReady(format!("{error:#}"))
                });
            }
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn refresh<C: MirroredCollection>(
    file: &mut WatchedFile,
    mirror: &mut Mirror<C>,
    reason: LoadReason,
) -> anyhow::Result<()> {
    let path = file.path().display().to_string();
    let read = file.read_if_changed().await.with_context(|| format!("cannot read {path}"))?;
    let Some(json) = read else { return Ok(()) };
    let documents = background(move || documents(&json, Mirror::<C>::NAME)).await;
    let documents = documents.with_context(|| format!("cannot use {path}"))?.unwrap_or_default();
    let mut load = mirror.begin_load();
    for (index, (key, document)) in documents.into_iter().enumerate() {
        if index % READ_AT_ONCE == 0 {
            yield_now().await;
        }
        match document {
            Ok(document) => mirror.load(&mut load, &key, &document),
            Err(malformed) => mirror.leave_out(&key, &malformed),
        }
    }
    mirror.finish_load(load, reason).await;
    Ok(())
}

/// Reads the file once, for `hookgate check`.
pub fn survey<W: MirroredCollection, U: MirroredCollection>(
    path: &Path,
    workflows: W,
    users: U,
) -> Findings {
    let mut findings = Findings::default();
    findings.fact("file", path.display().to_string());
    let json = text_file::read(path).context("cannot be read");
    let read = json.and_then(|json| {
        survey_collection(&json, workflows, &mut findings)?;
        survey_collection(&json, users, &mut findings)
    });
    if let Err(error) = read {
        findings.fault(format!("{error:#}"));
    }
    findings
}

fn survey_collection<C: MirroredCollection>(
    json: &[u8],
    collection: C,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let name = C::COLLECTION.as_str();
    let documents = documents(json, name)?;
    let mut survey = CollectionSurvey::new(collection);
    for (key, document) in documents.iter().flatten() {
        survey.visit(key, document.as_deref().map_err(Clone::clone));
    }
    let first = documents.iter().flatten().filter_map(|(_, document)| document.as_deref().ok());
    survey.visit_first(&first.take(FIRST_DOCUMENTS as usize).collect::<Vec<_>>());
    survey.finish(name, Some(documents.is_some()), findings);
    Ok(())
}

/// The key of an element, and its document or why it is not one.
type ReadDocument = (DocumentKey, Result<RawDocumentBuf, Malformed>);

/// The documents of one collection; `None` if the file does not have it. Extended JSON such as
/// `{"$oid": ...}` is read as MongoDB exports it.
fn documents(json: &[u8], collection: &str) -> anyhow::Result<Option<Vec<ReadDocument>>> {
    let mut file: Value = serde_json::from_slice(json).context("not JSON")?;
    // A file is valid as a whole: if one collection is broken, the other must not be served.
    let is_array = |collection: &&Collection| {
        file.is_object() && file.get(collection.as_str()).is_none_or(Value::is_array)
    };
    if let Some(broken) = Collection::ALL.iter().find(|collection| !is_array(collection)) {
        anyhow::bail!("{} is not an array", broken.as_str());
    }
    let Some(Value::Array(documents)) = file.get_mut(collection).map(Value::take) else {
        return Ok(None);
    };
    let read = |(index, json)| {
        if let Some((key, document)) = document(json) {
            return (key, Ok(document));
        }
        let name = format!("{collection}[{index}]");
        (DocumentKey::from_bson(RawBsonRef::String(&name)), Err(Malformed::Unreadable))
    };
    Ok(Some(documents.into_iter().enumerate().map(read).collect()))
}

/// A document and its key; `None` if this is not a document with an `_id`.
fn document(json: Value) -> Option<(DocumentKey, RawDocumentBuf)> {
    let Ok(Bson::Document(document)) = Bson::try_from(json) else { return None };
    let document = RawDocumentBuf::from_document(&document).ok()?;
    Some((DocumentKey::from_document(&document)?, document))
}
