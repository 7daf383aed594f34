//! Endpoints: addresses for senders that sign and know no credential.

mod again;
mod bodies;
mod changes;
mod clients;
mod flood;
mod handshakes;
mod http2;
mod limits;
mod nodes;
mod order;
mod presets;
mod projection;
mod reload;
mod rotation;
mod route;
mod schemes;
mod several;
mod settings;
mod sizes;
mod snapshot;

use hookgate::config::Config as Configuration;
use hookgate::settings::SettingsReader;
use serde_json::{Value, json};
use testkit::{Config, confidential};

/// A trigger node whose deliveries are verified like this.
fn node(id: &str, webhook: &str, verification: &Value) -> Value {
    let data = json!({ "webhookId": webhook, "verification": verification });
    json!({ "id": id, "type": "WebhookTrigger", "data": data })
}

/// A description by this secret, which no log may hold.
fn github(secret: &str) -> Value {
    confidential::credential(secret);
    json!({ "scheme": "github", "secret": secret })
}

/// The configuration as the service reads it.
fn read(config: &Config) -> Configuration {
    let file = config.to_string().parse().expect("TOML");
    let settings = SettingsReader::new(file, std::iter::empty());
    Configuration::read(settings).expect("no faults")
}
