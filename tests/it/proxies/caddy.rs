//! Caddy.

use super::{Proxy, Site, tool};

async fn proxy() -> Proxy {
    let site = Site::start().await;
    let (certificate, key) = (site.authority.certificate_file(), site.authority.key_file());
    // With a certificate of the test, and without the ports that Caddy opens besides.
    let own = format!(
        "{{\n\tadmin off\n\tauto_https disable_redirects\n}}\nhttps://127.0.0.1:{} {{\n\ttls {certificate} {key}\n",
        site.port()
    );
    let file = site.configuration("Caddyfile", &[("hooks.example.com {", own)]);
    let mut command = tool("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
    // It keeps its own files there.
    command.env("HOME", site.files.path()).env("XDG_DATA_HOME", site.files.path());
    site.behind("caddy", &command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_carries_webhooks() {
    let proxy = proxy().await;
    proxy.carries_webhooks().await;
    proxy.answers_itself_while_no_instance_is_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_through_caddy_loses_nothing() {
    proxy().await.loses_nothing_while_instances_are_restarted().await;
}
