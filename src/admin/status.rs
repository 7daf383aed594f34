//! The status page for people: whether the process is ready, and if not, why.

use crate::process::lifecycle::ReadinessReport;
use std::fmt::Write;
use std::time::Duration;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem}\
    .ready{color:#1a7f37}.not{color:#cf222e}.degraded{color:#9a6700}code{background:#f0f0f0;padding:0 .3em}\
    td{padding-right:2rem}";

/// Forbids everything, such as scripts, requests and frames, except for the style sheet with this
/// SHA-256.
pub(super) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    style-src 'sha256-lRi/Vq66znDyU+FQGB50VXz1825KnWGm6n9qkSBjdFo='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Renders the page. `build` is the version and commit.
pub(super) fn page(report: &ReadinessReport, index_age: Option<Duration>, build: &str) -> String {
    let (class, condition) = match (report.ready, report.degraded.is_empty()) {
        (true, true) => ("ready", "ready"),
        (true, false) => ("degraded", "ready, degraded"),
        (false, _) => ("not", "not ready"),
    };
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Hookgate: {condition}</title><style>{STYLE}</style>\
         <h1>Hookgate <span class={class}>{condition}</span></h1>"
    );
    list(&mut page, "Not ready because", &report.reasons);
    list(&mut page, "Degraded because", &report.degraded);
    let age =
        index_age.map_or_else(|| "not loaded".to_owned(), |age| format!("{} ms", age.as_millis()));
    let rows = [("Version", build.to_owned()), ("Age of the index", age)];
    page.push_str("<table>");
    for (name, value) in rows {
        push(&mut page, format_args!("<tr><td>{name}<td>{}", escape(&value)));
    }
    page.push_str(
        "</table><p><a href=/readyz>/readyz</a> <a href=/livez>/livez</a> <a href=/metrics>/metrics</a> \
         <a href=/openapi.json>/openapi.json</a></html>\n",
    );
    page
}

fn list(page: &mut String, title: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    push(page, format_args!("<h2>{title}</h2><ul>"));
    for item in items {
        push(page, format_args!("<li>{}", escape(item)));
    }
    page.push_str("</ul>");
}

fn push(page: &mut String, arguments: std::fmt::Arguments<'_>) {
    page.write_fmt(arguments).expect("writing into memory succeeds");
}

fn escape(string: &str) -> String {
    string.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
