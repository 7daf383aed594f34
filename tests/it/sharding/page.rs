//! The functions of `docs/reference/sharding.md`: its Node, its vectors and `hookgate shard` agree.

use super::shard;
use crate::contract::page_examples::{blocks, set_all};
use std::process::Command;
use testkit::Config;

const PAGE: &str = include_str!("../../../docs/reference/sharding.md");

/// A row of the table: an organization and its queue.
fn vectors() -> Vec<(String, String)> {
    let (_, section) = PAGE.split_once("\n## Test vectors\n").expect("the heading exists");
    let section = section.split("\n## ").next().expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |row: &str| {
        let cells: Vec<String> = row.trim_matches('|').split('|').map(cell).collect();
        (cells.first().expect("a cell").clone(), cells.last().expect("a cell").clone())
    };
    rows.map(row).collect()
}

fn configuration() -> Config {
    let blocks = blocks(PAGE, "## Test vectors");
    let Some(("toml", text)) = blocks.first() else { panic!("{blocks:?}") };
    let mut config = Config::new();
    set_all(&mut config, text);
    config.set("triggers.file", "workflows.json");
    config
}

/// Runs the code of the page with a line that prints the queue of each organization.
fn node(organizations: &[String]) -> Vec<String> {
    let blocks = blocks(PAGE, "## In Node");
    let [("js", code)] = blocks.as_slice() else { panic!("{blocks:?}") };
    assert_eq!(code.lines().count(), 15, "CHANGELOG.md says how many");
    let shards = r#"[{ name: "workflow-runner-0" }, { name: "workflow-runner-1", weight: 2 }, { name: "workflow-runner-2" }]"#;
    let program = format!(
        "{code}\nfor (const organization of process.argv.slice(1)) \
         console.log(shardOf(organization, {shards}));"
    );
    let output = Command::new("node").args(["-e", &program]).args(organizations).output();
    let output = output.expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[test]
fn the_table_of_the_page_is_right() {
    let (organizations, expected): (Vec<String>, Vec<String>) = vectors().into_iter().unzip();
    assert!(organizations.len() >= 8, "{organizations:?}");
    assert_eq!(queues(&configuration(), &organizations), expected);
    assert_eq!(node(&organizations), expected);
}

#[test]
fn node_computes_the_same_for_many_organizations() {
    let names = (0..400).map(|number| format!("org_{number}"));
    let odd = [
        "ü",
        "a b",
        "65A1B2C3D4E5F60718293A4B",
        "0",
        "组织-7",
        // Members that every object of Node has.
        "toString",
        "__proto__",
        "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
    ];
    let organizations: Vec<String> = names.chain(odd.map(str::to_owned)).collect();
    assert_eq!(node(&organizations), queues(&configuration(), &organizations));
}

fn queues(config: &Config, organizations: &[String]) -> Vec<String> {
    let output = shard(config, organizations);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    lines.lines().map(|line| line.split_once('\t').expect("a tab").1.to_owned()).collect()
}
