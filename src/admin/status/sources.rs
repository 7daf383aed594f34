//! The parts whose status is reported.

use crate::admin::status::index::{CollectionSource, DocumentsSource};
use crate::admission::Admission;
use crate::process::last_reload::LastReload;
use crate::queue::QueueParts;
use std::path::PathBuf;
use std::sync::Arc;

/// The parts whose status is reported.
#[derive(Debug)]
pub struct StatusSources {
    pub config_file: PathBuf,
    pub last_reload: LastReload,
    pub admission: Arc<Admission>,
    pub queues: Vec<QueueParts>,
    pub documents: DocumentsSource,
    pub collections: Vec<CollectionSource>,
}
