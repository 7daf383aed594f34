//! Reads the document of the API and compares answers with it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::header::HeaderMap;
use serde_json::{Map, Value, json};

use testkit::http::Reply;
use testkit::python::python;

/// The document in the repository.
pub(super) const TEXT: &str = include_str!("../../../../src/admin/openapi.json");

/// A file in the folder of this module.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi").join(name)
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Value,
}

impl Document {
    pub(super) fn read() -> Self {
        Self { root: serde_json::from_str(TEXT).expect("JSON") }
    }

    pub(super) fn members(&self, pointer: &str) -> &Map<String, Value> {
        let value = self.root.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        value.as_object().unwrap_or_else(|| panic!("{pointer} is no object"))
    }

    /// The target of a reference; any other value is its own target.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value["$ref"].as_str() else { return value };
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        self.root.pointer(pointer).unwrap_or_else(|| panic!("{reference} refers to nothing"))
    }

    /// Each operation with its path and method.
    pub(super) fn operations(&self) -> Vec<(&str, &str, &Value)> {
        let mut operations = Vec::new();
        for (path, item) in self.members("/paths") {
            let methods = item.as_object().expect("an object").iter();
            let methods =
                methods.filter(|(name, _)| !["servers", "parameters"].contains(&name.as_str()));
            operations.extend(methods.map(|(method, one)| (path.as_str(), method.as_str(), one)));
        }
        operations
    }

    /// Every status and answer that callers and senders may get, unless it has no body.
    pub(super) fn answers_to_callers(&self) -> Vec<(u16, &Value)> {
        let mut answers = vec![
            (404, &self.root["components"]["responses"]["NotFound"]),
            (405, &self.root["components"]["responses"]["MethodNotAllowed"]),
        ];
        for (path, _, operation) in self.operations() {
            if path.starts_with("/api/") {
                let responses = operation["responses"].as_object().expect("an object").iter();
                let responses = responses.map(|(status, response)| {
                    (status.parse().expect("a status"), self.resolve(response))
                });
                answers.extend(responses.filter(|(_, response)| response.get("content").is_some()));
            }
        }
        answers
    }

    /// The answer of an operation with this status. Without one of its own, 404 and 405 are those of
    /// any other path or method.
    pub(super) fn answer(&self, path: &str, method: &str, status: u16) -> &Value {
        let response = &self.root["paths"][path][method]["responses"][status.to_string()];
        match status {
            404 if response.is_null() => return &self.root["components"]["responses"]["NotFound"],
            405 => return &self.root["components"]["responses"]["MethodNotAllowed"],
            _ => {}
        }
        assert!(response.is_object(), "{method} {path} has no {status}");
        self.resolve(response)
    }

    /// The examples of a media type, a header or a parameter; at least one is required.
    pub(super) fn examples<'a>(&'a self, holder: &'a Value) -> Vec<&'a Value> {
        let named = holder["examples"].as_object().into_iter().flatten();
        let named = named.map(|(_, example)| &self.resolve(example)["value"]);
        let examples: Vec<&Value> = holder.get("example").into_iter().chain(named).collect();
        assert!(!examples.is_empty(), "no example: {holder}");
        examples
    }
}

/// The contents of a request body or an answer, each with its media type.
pub(super) fn contents(holder: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let contents = holder["content"].as_object().into_iter().flatten();
    contents.map(|(media_type, content)| (media_type.as_str(), content))
}

/// The only content of a request body or an answer, with its media type.
pub(super) fn content(holder: &Value) -> (&str, &Value) {
    let mut contents = contents(holder);
    let (media_type, content) = contents.next().expect("a media type");
    assert!(contents.next().is_none(), "more than one media type: {holder}");
    (media_type, content)
}

/// Values, and the schemas that they must match.
#[derive(Debug, Default)]
pub(super) struct Cases {
    cases: Vec<Value>,
}

impl Cases {
    pub(super) fn add(&mut self, what: &str, schema: &Value, value: &Value) {
        self.cases.push(json!({ "what": what, "schema": schema, "value": value }));
    }

    /// An answer that the service has given.
    pub(super) fn add_reply(
        &mut self,
        document: &Document,
        path: &str,
        method: &str,
        reply: &Reply,
    ) {
        let what = format!("{method} {path} {}: {}", reply.status, reply.text());
        let answer = document.answer(path, method, reply.status);
        let media_type = reply.header("content-type");
        let Some((media_type, content)) =
            contents(answer).find(|(documented, _)| media_type == Some(*documented))
        else {
            assert!(answer.get("content").is_none(), "{what}: {media_type:?}");
            assert!(reply.body.is_empty(), "{what}");
            return self.add_headers(document, &what, answer, &reply.headers);
        };
        let body =
            if media_type == "application/json" { reply.json() } else { json!(reply.text()) };
        self.add(&what, &content["schema"], &body);
        self.add_headers(document, &what, answer, &reply.headers);
    }

    fn add_headers(&mut self, document: &Document, what: &str, answer: &Value, sent: &HeaderMap) {
        for (name, header) in answer["headers"].as_object().into_iter().flatten() {
            let header = document.resolve(header);
            let Some(value) = sent.get(name) else {
                assert_ne!(header["required"], true, "{what}: no {name}");
                continue;
            };
            let text = value.to_str().expect("a string");
            let is_number = header["schema"]["type"] == "integer";
            let value = if is_number { text.parse::<u64>().map(Value::from).ok() } else { None };
            self.add(what, &header["schema"], &value.unwrap_or_else(|| json!(text)));
        }
        // Headers of the protocol itself are not in the document.
        let own = ["connection", "content-length", "content-type", "date"];
        for name in sent.keys().map(reqwest::header::HeaderName::as_str) {
            let documented = answer["headers"].as_object().into_iter().flatten();
            let is_documented =
                documented.map(|(name, _)| name).any(|known| known.eq_ignore_ascii_case(name));
            assert!(is_documented || own.contains(&name), "{what}: {name} is not documented");
        }
    }

    /// Asserts that the values match their schemas and that the document is valid.
    pub(super) fn judge(self, document: &Document) {
        let count = self.cases.len();
        let given = json!({ "document": document.root, "cases": self.cases }).to_string();
        let mut command = python("schemathesis");
        command.arg(path("validate.py")).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python3");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(given.as_bytes()).expect("it reads");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(stderr, format!("{count} cases, 0 faults\n"), "{stdout}");
    }
}
