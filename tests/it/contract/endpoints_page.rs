//! The example and the presets of `docs/operating/endpoints.md`, and the example of
//! `docs/reference/verifications.md`.

use crate::contract::page_examples::{blocks, set_all};
use hookgate::endpoints::verification::{
    Condition, DeliveryId, PRESETS, Preset, Value as Member, Verification,
};
use serde_json::Value;
use std::process::Command;
use testkit::{App, Documents, confidential};

const PAGE: &str = include_str!("../../../docs/operating/endpoints.md");

const REFERENCE: &str = include_str!("../../../docs/reference/verifications.md");

/// Where the commands of the page send.
const ADDRESS: &str = "http://127.0.0.1:2212";

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Runs the commands of the page and returns what they print.
fn run(commands: &str, app: &App) -> String {
    assert_eq!(commands.matches(ADDRESS).count(), 1, "{commands}");
    let commands = commands.replace(ADDRESS, &format!("http://{}", app.hookgate.address()));
    let output = Command::new("sh").args(["-e", "-c", &commands]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn the_commands_of_the_page_make_its_job() {
    let blocks = blocks(PAGE, "## GitHub from the document to the job");
    let [
        ("json", document),
        ("toml", configuration),
        ("sh", commands),
        ("json", answer),
        ("json", job),
    ] = blocks.as_slice()
    else {
        panic!("{blocks:?}")
    };
    let document = json(document);
    let secret = &document["nodes"][0]["data"]["verification"]["secret"];
    confidential::credential(secret.as_str().expect("a secret"));
    let documents = Documents { workflows: vec![document], users: Vec::new() };
    let app = App::build().documents(documents);
    let app = app.config(|config| set_all(config, configuration)).start().await;
    // The second delivery has the same id, so it adds no job.
    for _ in 0..2 {
        assert_eq!(run(commands, &app), answer.trim_end());
    }
    let (mut data, mut expected) = (app.redis.queue().only_job().await.data(), json(job));
    for member in ["requestId", "receivedAt"] {
        data[member] = Value::Null;
        expected[member] = Value::Null;
    }
    assert_eq!(data, expected);
}

/// What a cell of the table says of the time.
fn time(preset: &Preset) -> &'static str {
    let member = |wanted: &str| preset.members.iter().find(|(name, _)| *name == wanted);
    match member("tolerance") {
        Some((_, Member::Text(tolerance))) => tolerance,
        _ if preset.scheme == "jwt" => "5m",
        _ if preset.members.iter().any(|(name, _)| name.starts_with("timestamp")) => "5m",
        _ => "–",
    }
}

/// What a cell of the table says of the id.
fn delivery_id(preset: &Preset) -> String {
    match preset.delivery_id {
        DeliveryId::None => "–".to_owned(),
        DeliveryId::Header(name) => format!("`{name}`"),
        DeliveryId::Body(path) => format!("`{path}` of the body"),
        DeliveryId::Signed => "`webhook-id` or `svix-id`, signed".to_owned(),
    }
}

/// What a cell of the table says of the handshakes.
fn handshake(preset: &Preset) -> &'static str {
    let conditions = preset.handshakes.iter().flat_map(|handshake| handshake.conditions);
    let is_token = |condition: &Condition| matches!(condition, Condition::QueryIsToken(_));
    match preset.handshakes {
        [] => "–",
        _ if conditions.into_iter().any(is_token) => "`verifyToken`",
        [first, ..] if first.is_signed => "signed",
        _ => "unsigned",
    }
}

#[test]
fn the_page_has_every_preset_as_it_is() {
    let rows: Vec<&str> = PAGE.lines().filter(|line| line.starts_with("| [`")).collect();
    assert_eq!(rows.len(), PRESETS.len());
    for (row, preset) in rows.into_iter().zip(PRESETS) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, _, of_time, id, of_handshake, _] = cells.as_slice() else { panic!("{row}") };
        assert_eq!(*name, format!("| [`{}`]({})", preset.name, preset.page));
        assert_eq!(*of_time, time(preset), "{row}");
        assert!(id.starts_with(&delivery_id(preset)), "{row}");
        assert_eq!(*of_handshake, handshake(preset), "{row}");
    }
}

#[test]
fn the_verification_of_the_reference_is_valid() {
    let blocks = blocks(REFERENCE, "## Without a preset");
    let [("json", description)] = blocks.as_slice() else { panic!("{blocks:?}") };
    let document = bson::to_raw_document_buf(&json(description)).expect("a document");
    let verification = Verification::from_document(&document).expect("a valid verification");
    assert_eq!(verification.scheme(), "hmac");
}
