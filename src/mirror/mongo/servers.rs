//! The last known state of each server, for the log and `/readyz`. The driver's own message, when
//! it finds no server, is a dump of everything it knows.

use crate::mirror::mongo::reason::reason;
use mongodb::error::{Error, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{ClientOptions, Tls};
use mongodb::{ServerInfo, ServerType};
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// The servers of a client by their addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers(Arc<Mutex<BTreeMap<String, ServerStatus>>>);

#[derive(Debug, Default)]
struct ServerStatus {
    has_answered: bool,
    state: String,
}

impl Servers {
    /// Subscribes to the events of a client that is made with these options.
    pub(super) fn watch(options: &mut ClientOptions) -> Self {
        let servers = Self::default();
        let speaks_tls = matches!(options.tls, Some(Tls::Enabled(_)));
        let watching = servers.clone();
        options.sdam_event_handler =
            Some(EventHandler::callback(move |event| watching.record(event, speaks_tls)));
        servers
    }

    /// Every server with its state.
    pub(super) fn describe(&self) -> String {
        let servers = self.lock();
        let each = servers.iter().map(|(address, server)| format!("{address}: {}", server.state));
        each.collect::<Vec<_>>().join("; ")
    }

    fn record(&self, event: SdamEvent, speaks_tls: bool) {
        let mut servers = self.lock();
        match event {
            SdamEvent::ServerOpening(event) => {
                let server = servers.entry(event.address.to_string()).or_default();
                UNANSWERED.clone_into(&mut server.state);
            }
            SdamEvent::ServerClosed(event) => {
                servers.remove(&event.address.to_string());
            }
            SdamEvent::ServerDescriptionChanged(event) => {
                let server = servers.entry(event.address.to_string()).or_default();
                server.update(&event.new_description, speaks_tls);
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ServerStatus>> {
        self.0.lock()
    }
}

impl ServerStatus {
    fn update(&mut self, description: &ServerInfo<'_>, speaks_tls: bool) {
        if let Some(error) = description.error() {
            return self.fail(error, speaks_tls);
        }
        self.has_answered |= description.server_type() != ServerType::Unknown;
        kind(description.server_type()).clone_into(&mut self.state);
    }

    fn fail(&mut self, error: &Error, speaks_tls: bool) {
        self.state = reason(error);
        if !self.has_answered && !speaks_tls && is_cut_off(error) {
            self.state.push_str("; a port that requires TLS behaves like this: try tls=true");
        }
    }
}

const UNANSWERED: &str = "has not answered yet";

fn kind(server: ServerType) -> &'static str {
    match server {
        ServerType::RsPrimary => "is primary",
        ServerType::RsSecondary => "is a secondary",
        ServerType::RsArbiter => "is an arbiter",
        ServerType::RsOther => "is starting up, recovering or hidden",
        ServerType::RsGhost => "its replica set is not initialized",
        ServerType::Standalone => "is in no replica set",
        ServerType::Mongos => "is a mongos",
        ServerType::LoadBalancer => "is a load balancer",
        _ => UNANSWERED,
    }
}

/// Whether the server has closed the connection instead of answering.
fn is_cut_off(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(&*error.kind, ErrorKind::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof))
}
