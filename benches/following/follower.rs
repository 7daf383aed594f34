//! Hookgate's own following, on a thread of its own, as in the program.

use crate::collection::{Place, Workflows};
use crate::new_runtime;
use hookgate::ids::{OrganizationId, WebhookId};
use hookgate::metrics::Metrics;
use hookgate::mirror::Mirror;
use hookgate::mirror::mongo::{Mongo, MongoSettings, follow};
use hookgate::process::lifecycle::Readiness;
use hookgate::settings::SettingsReader;
use hookgate::triggers::{TriggerIndex, TriggersSettings, WorkflowCollection};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

pub struct Follower {
    pub index: Arc<TriggerIndex>,
    /// Stops it when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Follower {
    /// Returns when the collection has been loaded.
    pub fn start(workflows: &Workflows) -> Self {
        let settings = TriggersSettings::read(&mut SettingsReader::default().section("triggers"));
        let index = Arc::new(TriggerIndex::new(&settings));
        let (stop, stopped) = oneshot::channel();
        let (following, loaded) = (following(workflows, &index), Arc::clone(&index));
        let thread = thread::spawn(move || {
            let runtime = new_runtime();
            runtime.block_on(async {
                tokio::select! {
                    () = following => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        while !loaded.freshness().is_loaded() {
            thread::park_timeout(Duration::from_millis(1));
        }
        Self { index, stop: Some(stop), thread: Some(thread) }
    }

    /// Whether the index has a workflow at this place.
    pub fn shows(&self, place: &Place) -> bool {
        shows(&self.index, &place.organization, &place.webhook)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn following(
    workflows: &Workflows,
    index: &TriggerIndex,
) -> impl Future<Output = ()> + Send + use<> {
    let file = format!(
        "[mongodb]\nuri = \"{}\"\ndatabase = \"{}\"\n",
        workflows.database.uri(),
        workflows.database.name()
    );
    let mut settings = SettingsReader::new(file.parse().unwrap(), std::iter::empty());
    let mongo = Mongo::new(MongoSettings::read(&mut settings.section("mongodb")));
    let triggers = TriggersSettings::read(&mut settings.section("triggers"));
    let metrics = Metrics::new("bench", "bench").unwrap();
    let mirror = Mirror::new(
        WorkflowCollection::new(&triggers, index, Arc::clone(&metrics)),
        Arc::clone(index.freshness()),
        metrics,
        Readiness::default().part("workflows"),
    );
    follow(Arc::new(mongo), triggers.collection, mirror)
}

pub fn shows(index: &TriggerIndex, organization: &str, webhook: &str) -> bool {
    let organization = OrganizationId::new(organization).unwrap();
    let webhook = WebhookId::new(webhook).unwrap();
    index.matching(&organization, &webhook, |matches| matches.count() == 1).unwrap_or(false)
}
