//! Bodies as callers send them.

const RECORD: &str = r#"{"name":"Alex","score":17.5,"tags":["new","eu"],"ok":true}"#;

/// A body of exactly `bytes` bytes, at least 150.
pub fn body(webhook: &str, bytes: usize) -> String {
    let mut body = format!(r#"{{"webhookId":"{webhook}","records":[{RECORD}"#);
    let end = |note: &str| format!(r#"],"note":"{note}"}}"#);
    while body.len() + RECORD.len() + 1 + end("").len() <= bytes {
        body.push(',');
        body.push_str(RECORD);
    }
    let left = bytes - body.len() - end("").len();
    body + &end(&"x".repeat(left))
}
