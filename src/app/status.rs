//! What the status page reports of the parts.

use crate::admin::{CollectionSource, DocumentsSource, StatusSources};
use crate::app::App;
use crate::config::Config;
use crate::metrics::Collection;
use crate::triggers::DocumentSource;
use std::path::Path;
use std::sync::Arc;

impl App {
    pub(super) fn status_sources(&self, config_file: &Path) -> StatusSources {
        let workflows = CollectionSource {
            collection: Collection::Workflows,
            freshness: Arc::clone(self.triggers.freshness()),
            left_out: Arc::clone(&self.left_out_workflows),
        };
        let users = CollectionSource {
            collection: Collection::Users,
            freshness: Arc::clone(self.callers.freshness()),
            left_out: Arc::clone(&self.left_out_users),
        };
        StatusSources {
            config_file: config_file.to_owned(),
            last_reload: self.last_reload.clone(),
            admission: Arc::clone(&self.admission),
            queues: self.queues.clone(),
            documents: documents(&self.config),
            collections: vec![workflows, users],
        }
    }
}

fn documents(config: &Config) -> DocumentsSource {
    match config.triggers.source {
        DocumentSource::File => DocumentsSource {
            kind: "file",
            address: config.triggers.file.display().to_string(),
            database: None,
        },
        DocumentSource::MongoDb => DocumentsSource {
            kind: "mongodb",
            address: config.mongodb.servers().unwrap_or_default(),
            database: Some(config.mongodb.database().to_owned()),
        },
    }
}
