//! The examples of `docs/operating/fitting-your-engine.md`: with the document and the configuration
//! of an example, its request makes its job.

use crate::contract::page_examples::{self, set_all};
use serde_json::Value;
use testkit::documents::{Documents, workflow};
use testkit::tokens::{claims, token};
use testkit::{App, Mongo};
use toml::Table;

const PAGE: &str = include_str!("../../../docs/operating/fitting-your-engine.md");

fn blocks(heading: &str) -> Vec<(&'static str, &'static str)> {
    page_examples::blocks(PAGE, &format!("### {heading}"))
}

/// The first block in a language.
fn block(blocks: &[(&str, &'static str)], language: &str) -> &'static str {
    blocks.iter().find(|(found, _)| *found == language).expect("a block").1
}

fn setting<'a>(configuration: &'a Table, key: &str, default: &'a str) -> &'a str {
    let (section, key) = key.split_once('.').expect("a key in a section");
    let value = configuration.get(section).and_then(|section| section.get(key));
    value.map_or(default, |value| value.as_str().expect("a string"))
}

/// Starts Hookgate with the configuration of an example and these documents, which are in its
/// collections.
async fn start(configuration: &Table, text: &str, documents: &Documents) -> App {
    let database = Mongo::shared().await.database().await;
    database.insert(documents).await;
    for (key, default) in [("triggers.collection", "workflows"), ("users.collection", "users")] {
        let name = setting(configuration, key, default);
        if name != default {
            database.rename(default, name).await;
        }
    }
    App::build().mongo(&database).config(|config| set_all(config, text)).start().await
}

/// Sends the request of an example, and compares its job with that of the example. A request
/// without a credential of its own gets a token.
async fn assert_example(heading: &str, documents: &Documents) {
    let blocks = blocks(heading);
    let text = block(&blocks, "toml");
    let configuration: Table = text.parse().expect("TOML");
    let app = start(&configuration, text, documents).await;

    let request = block(&blocks, "http");
    let (headers, body) = request.split_once("\n\n").unwrap_or(("", request));
    let mut call = app.post(body.trim());
    if !headers.contains("Authorization: ") {
        call = call.bearer(&token(&claims("org_1", "user_1")));
    }
    for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
        call = call.header(name, value);
    }
    assert_eq!(call.send().await.matched(), 1, "{heading}");
    let name = setting(&configuration, "queue.name", "workflow-runner");
    let job = app.redis.queue_named("bull", name).only_job().await;
    assert_eq!(job.text("name"), setting(&configuration, "queue.job_name", "workflow"));
    let (_, expected) = blocks.last().expect("the job");
    let expected: Value = serde_json::from_str(expected).expect("JSON");
    assert_eq!(job.data(), expected, "{heading}");
}

#[tokio::test]
async fn triggers_at_the_top_of_a_document_start_a_flow() {
    let heading = "Triggers at the top of the document";
    let blocks = blocks(heading);
    let documents = blocks.iter().take_while(|(language, _)| *language == "json");
    let documents: Vec<Value> =
        documents.map(|(_, text)| serde_json::from_str(text).expect("JSON")).collect();
    let [flow, member] = documents.as_slice() else { panic!("{documents:?}") };
    let documents = Documents { workflows: vec![flow.clone()], users: vec![member.clone()] };
    assert_example(heading, &documents).await;
}

#[tokio::test]
async fn a_worker_gets_headers_and_the_raw_body() {
    let workflows = vec![workflow("wf_1", "org_1", "wh_1")];
    let documents = Documents { workflows, users: Vec::new() };
    assert_example("A worker that checks signatures itself", &documents).await;
}

/// A further example needs a test of its own.
#[test]
fn every_example_is_run() {
    let headings = PAGE.lines().filter_map(|line| line.strip_prefix("### "));
    let expected =
        ["Triggers at the top of the document", "A worker that checks signatures itself"];
    assert!(headings.eq(expected));
}
