//! The same documents from a JSON file, which is followed for changes.

use super::document::DocumentKey;
use super::{Load, Mirror, View};
use crate::lifecycle::Condition;
use crate::metrics::LoadReason;
use crate::watched_file::{LOOK_INTERVAL, WatchedFile};
use anyhow::Context;
use bson::{Bson, RawDocumentBuf};
use serde_json::Value;
use std::path::PathBuf;
use tokio::time::Instant;

/// Keeps a mirror as the file has it: `{"workflows": [...], "users": [...]}`. Never ends.
pub async fn follow<V: View>(path: PathBuf, mut mirror: Mirror<V>) {
    let mut file = WatchedFile::new(path);
    let mut reason = LoadReason::Start;
    loop {
        match refresh(&mut file, &mut mirror, reason) {
            Ok(()) => {
                reason = LoadReason::FileChanged;
                mirror.current_as_of(Instant::now());
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
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn refresh<V: View>(
    file: &mut WatchedFile,
    mirror: &mut Mirror<V>,
    reason: LoadReason,
) -> anyhow::Result<()> {
    let path = file.path().display().to_string();
    let Some(json) = file.read_if_changed().with_context(|| format!("cannot read {path}"))? else {
        return Ok(());
    };
    let documents =
        documents(&json, Mirror::<V>::NAME).with_context(|| format!("cannot use {path}"))?;
    let keys: Option<Vec<_>> = documents.iter().map(|document| DocumentKey::of(document)).collect();
    let mut load = Load::default();
    for (key, document) in keys.context("a document has no _id")?.into_iter().zip(&documents) {
        mirror.load(&mut load, key, document);
    }
    mirror.finish_load(load, reason);
    Ok(())
}

/// The documents of one collection; `{"$oid": ...}` and the like are read as MongoDB exports them.
fn documents(json: &[u8], collection: &str) -> anyhow::Result<Vec<RawDocumentBuf>> {
    let mut file: Value = serde_json::from_slice(json).context("not JSON")?;
    let documents = match file.get_mut(collection).map(Value::take) {
        Some(Value::Array(documents)) => documents,
        None if file.is_object() => Vec::new(),
        _ => anyhow::bail!("{collection} is not an array"),
    };
    documents.into_iter().map(document).collect()
}

fn document(json: Value) -> anyhow::Result<RawDocumentBuf> {
    match Bson::try_from(json)? {
        Bson::Document(document) => Ok(RawDocumentBuf::from_document(&document)?),
        _ => anyhow::bail!("a document is not an object"),
    }
}
