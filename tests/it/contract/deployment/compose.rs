//! Compares compose.yaml with the files that it mounts and the addresses in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hookgate::config::Config;
use hookgate::http::listen::ListenAddress;
use hookgate::settings::SettingsReader;
use serde::Deserialize;

use super::ROOT;
use testkit::python::python;

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, Option<()>>,
}

#[derive(Deserialize)]
struct Service {
    build: Option<Build>,
    stop_grace_period: Option<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Build {
    Context(String),
    With { context: String },
}

#[test]
fn files_that_compose_mounts_and_builds_exist() {
    let compose = compose();
    let mut paths = Vec::new();
    for service in compose.services.values() {
        if let Some(Build::Context(context) | Build::With { context }) = &service.build {
            paths.push(format!("{context}/Dockerfile"));
        }
        for volume in &service.volumes {
            let source = volume.split(':').next().expect("split has a first part");
            if source.starts_with('.') {
                paths.push(source.to_owned());
            } else {
                assert!(compose.volumes.contains_key(source), "{source} is no volume");
            }
        }
    }
    assert!(paths.len() > 4, "only {paths:?}: is the whole file still read?");
    let missing: Vec<_> =
        paths.iter().filter(|path| !Path::new(ROOT).join(path).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Editors and `git` replace a file. A container that has mounted the file itself keeps the old
/// one.
#[test]
fn the_configuration_is_mounted_with_its_folder() {
    let image = read("Dockerfile");
    let (_, file) = image.split_once("HOOKGATE_CONFIG=").expect("the image names the file");
    let file = Path::new(file.lines().next().expect("a line"));
    let volumes = &compose().services["hookgate"].volumes;
    let mut parts = volumes.first().expect("the configuration is mounted").split(':');
    let (source, target) = (parts.next().expect("a source"), parts.next().expect("a target"));
    let name = file.strip_prefix(target).expect("the file is in the folder that is mounted");
    assert!(Path::new(ROOT).join(source).is_dir(), "{source} is no folder");
    assert!(Path::new(ROOT).join(source).join(name).is_file(), "{source} has no {name:?}");
    assert_eq!(volumes.len(), 1, "{volumes:?}");
}

#[test]
fn addresses_use_the_service_names_of_compose() {
    let services: BTreeSet<String> = compose().services.into_keys().collect();
    let files = [
        "compose.yaml",
        "config/compose/hookgate.toml",
        "config/compose/mongodb.js",
        "config/prometheus/prometheus.yml",
        "deploy/grafana/provisioning/datasources/prometheus.yaml",
    ];
    for file in files {
        let hosts: BTreeSet<String> =
            addresses(&read(file)).into_iter().map(|(host, _)| host).collect();
        assert!(!hosts.is_empty(), "no address was found in {file}");
        let strangers: Vec<_> = hosts.difference(&services).collect();
        assert!(strangers.is_empty(), "{file} asks for {strangers:?}");
    }
}

#[test]
fn published_ports_are_those_of_hookgate() {
    let config = config();
    let ListenAddress::Tcp(listen) = &config.server.listen else { panic!("not a port") };
    let listening = BTreeSet::from([listen.port(), config.admin.listen.port()]);
    let published = &compose().services["hookgate"].ports;
    let published = published.iter().map(|port| port.rsplit(':').next().unwrap_or_default());
    let published: BTreeSet<u16> = published.map(|port| port.parse().expect("a port")).collect();
    assert_eq!(published, listening);

    let targets = addresses(&read("config/prometheus/prometheus.yml"));
    assert_eq!(targets, [("hookgate".to_owned(), config.admin.listen.port())]);
    // The host name of the scrape is one that the admin port accepts.
    let table: toml::Table = toml::from_str(&read("config/compose/hookgate.toml")).expect("TOML");
    assert_eq!(table["admin"]["hosts"], toml::Value::from(vec!["hookgate"]));
    // The health check of the image uses the default address unless the environment has another.
    let standard = Config::read(SettingsReader::default()).expect("no faults").admin.listen;
    assert_eq!(config.admin.listen.port(), standard.port());
}

/// The key of the demo is in this repository.
#[test]
fn ports_are_published_on_this_machine_only() {
    let services = compose().services;
    let published: Vec<&String> = services.values().flat_map(|service| &service.ports).collect();
    assert!(published.len() > 3, "only {published:?}");
    let open: Vec<_> = published.iter().filter(|port| !port.starts_with("127.0.0.1:")).collect();
    assert!(open.is_empty(), "{open:?}");
}

/// Grafana finds the dashboards where compose.yaml mounts their folder.
#[test]
fn grafana_reads_the_folder_of_dashboards() {
    let provider = read("deploy/grafana/provisioning/dashboards/hookgate.yaml");
    let (_, path) = provider.split_once("path: ").expect("the provider has a folder");
    let mounts = &compose().services["grafana"].volumes;
    let wanted = format!("./deploy/grafana:{}:ro", path.trim());
    assert!(mounts.contains(&wanted), "{wanted} is not in {mounts:?}");
    let provisioning = "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro".to_owned();
    assert!(mounts.contains(&provisioning), "{mounts:?}");
}

#[test]
fn compose_leaves_hookgate_time_to_drain() {
    let patience =
        compose().services["hookgate"].stop_grace_period.clone().expect("the grace period is set");
    let patience = humantime::parse_duration(&patience).expect("a span");
    let server = config().server;
    let needed = server.drain_delay + server.drain_timeout;
    assert!(patience > needed + Duration::from_secs(1), "{patience:?} for {needed:?}");
}

/// Python parses YAML, because schemathesis needs a YAML parser there anyway.
fn compose() -> Compose {
    let mut python = python("schemathesis");
    python
        .args(["-c", "import json, yaml; print(json.dumps(yaml.safe_load(open('compose.yaml'))))"]);
    let output = python.current_dir(ROOT).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("services and volumes")
}

fn config() -> Config {
    let table = toml::from_str(&read("config/compose/hookgate.toml")).expect("TOML");
    Config::read(SettingsReader::new(table, std::iter::empty())).expect("no faults")
}

/// Every `name:port`, except those that begin with an IP address.
fn addresses(text: &str) -> Vec<(String, u16)> {
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && !".:-".contains(sign));
    let pairs = words.filter_map(|word| word.split_once(':'));
    let pairs = pairs.filter_map(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    pairs
        .filter(|(host, _)| host.parse::<IpAddr>().is_err() && host.parse::<u16>().is_err())
        .collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
