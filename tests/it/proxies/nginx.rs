//! nginx.

use std::process::Command;

use super::{Proxy, Site, system};

/// What a distribution has around the files in conf.d. nginx runs as one process, because workers
/// would outlive a master that is killed.
const SURROUNDINGS: &str = "
daemon off;
master_process off;
pid proxy.pid;
error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include nginx.conf;
}
";

async fn proxy() -> Proxy {
    let site = Site::start().await;
    site.configuration(
        "nginx.conf",
        &[
            ("listen 443", format!("listen {}", site.port())),
            ("/etc/nginx/tls.crt", site.authority.certificate_file()),
            ("/etc/nginx/tls.key", site.authority.key_file()),
        ],
    );
    let main = site.files.write("main.conf", SURROUNDINGS);
    let mut command: Command = system("nginx");
    command.arg("-e").arg("stderr").arg("-p").arg(site.files.path()).arg("-c").arg(main);
    site.behind("nginx", &command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_carries_webhooks() {
    let proxy = proxy().await;
    proxy.carries_webhooks().await;
    proxy.passes_on_why_no_instance_is_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_through_nginx_loses_nothing() {
    proxy().await.loses_nothing_while_instances_are_restarted().await;
}
