//! The proxy `HAProxy`.

use super::{Proxy, Site, system};

async fn proxy() -> Proxy {
    let site = Site::start().await;
    let identity = site.authority.issue();
    let pem = site.files.write("hooks.pem", identity.chain_pem + &identity.key_pem);
    let file = site.configuration(
        "haproxy.cfg",
        &[
            ("bind :443", format!("bind 127.0.0.1:{}", site.port())),
            ("/etc/haproxy/hooks.pem", pem.to_str().expect("a path in UTF-8").to_owned()),
        ],
    );
    let mut command = system("haproxy");
    command.arg("-db").arg("-f").arg(file);
    site.behind("haproxy", &command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_carries_webhooks() {
    let proxy = proxy().await;
    proxy.carries_webhooks().await;
    proxy.passes_on_why_no_instance_is_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_through_haproxy_loses_nothing() {
    proxy().await.loses_nothing_while_instances_are_restarted().await;
}
