//! Envoy.

use super::{Proxy, Site, tool};

async fn proxy() -> Proxy {
    let site = Site::start().await;
    let file = site.configuration(
        "envoy.yaml",
        &[
            (
                "address: 0.0.0.0, port_value: 443",
                format!("address: 127.0.0.1, port_value: {}", site.port()),
            ),
            ("/etc/envoy/tls.crt", site.authority.certificate_file()),
            ("/etc/envoy/tls.key", site.authority.key_file()),
        ],
    );
    let mut command = tool("envoy");
    command.args(["--use-dynamic-base-id", "--concurrency", "2", "--config-path"]).arg(file);
    site.behind("envoy", &command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_carries_webhooks() {
    let proxy = proxy().await;
    proxy.carries_webhooks().await;
    proxy.passes_on_why_no_instance_is_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_through_envoy_loses_nothing() {
    proxy().await.loses_nothing_while_instances_are_restarted().await;
}
