//! Templates and headers that are refused, each with the key and the reason.

use serde_json::Value;
use testkit::hookgate::command;
use testkit::scratch::Scratch;

/// The output of `check` and its exit code.
fn check(text: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let files = Scratch::new("job-data");
    let file = files.write("hookgate.toml", text);
    let mut command = command(&["check", "--config"]);
    command.arg(file).env("NO_COLOR", "1").envs(variables.iter().copied());
    let output = command.output().expect("the command runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

fn assert_fault(text: &str, key: &str, reason: &str) {
    let (code, out) = check(text, &[]);
    assert_eq!(code, Some(2), "{text}: {out}");
    let line = out.lines().find(|line| line.trim_start().starts_with(&format!("{key}: ")));
    assert!(line.is_some_and(|line| line.contains(reason)), "{text}: {out}");
}

#[test]
fn every_fault_of_a_template_is_reported_with_its_place() {
    let text = "[queue.data]\na = \"{workflowid}\"\n[queue.data.b]\nc = [1, \"{payload}!\"]\n\
        d = 1979-05-27\ne = { f = inf }\n";
    let (code, out) = check(text, &[]);
    assert_eq!(code, Some(2));
    for expected in [
        "queue.data.a: unknown placeholder {workflowid}; did you mean {workflowId}? (line 2)",
        "queue.data.b.c[1]: {payload} in \"{payload}!\" is an object, which cannot be a part of a string",
        "(line 4)",
        "queue.data.b.d: a date has no form in JSON; write it as a string (line 5)",
        "queue.data.b.e.f: nan and inf have no form in JSON (line 6)",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
}

#[test]
fn a_template_must_be_a_table_of_known_placeholders() {
    for (value, key, reason) in [
        ("\"{payload}\"", "queue.data", "not a table; write a section [queue.data]"),
        ("[\"{payload}\"]", "queue.data", "not a table"),
        ("{ a = \"{\" }", "queue.data.a", "unbalanced braces in \"{\""),
        ("{ a = \"x}\" }", "queue.data.a", "unbalanced braces in \"x}\""),
        ("{ a = \"{flow}\" }", "queue.data.a", "unknown placeholder {flow}; known are workflowId"),
        ("{ a = \"{workfow.version}\" }", "queue.data.a", "did you mean {workflow.version}?"),
        ("{ a = \"{node}\" }", "queue.data.a", "{node} names no field"),
        ("{ a = \"{workflow}\" }", "queue.data.a", "write one, such as {workflow.version}"),
        ("{ a = \"{flow.rev}\" }", "queue.data.a", "a field of the workflow is {workflow.rev}"),
        (
            "{ a = \"{headers.x}\" }",
            "queue.data.a",
            "a single header cannot be named; use {headers}",
        ),
        ("{ a = \"${payload}\" }", "queue.data.a", "write \"{payload}\" without the $"),
        ("{ a = \"{nodeIds} {nodeId}\" }", "queue.data.a", "is an array"),
        ("{ a = \"{headers} \" }", "queue.data.a", "is an object"),
    ] {
        assert_fault(&format!("[queue]\ndata = {value}\n"), key, reason);
    }
}

#[test]
fn credentials_cannot_get_into_a_job() {
    for name in ["Authorization", "proxy-authorization", "COOKIE", "X-Gitlab-Token"] {
        let text = format!("[queue]\nforward_headers = [\"x-fine\", \"{name}\"]\n");
        assert_fault(&text, "queue.forward_headers", &name.to_ascii_lowercase());
    }
    for name in ["", "a b", "a:", "\u{fc}"] {
        let text = format!("[queue]\nforward_headers = [\"{name}\"]\n");
        assert_fault(&text, "queue.forward_headers", "is no name of a header");
    }
    for (field, path) in [
        ("apiKey", "workflow.apiKey"),
        ("apiKey", "workflow.apiKey.hash"),
        ("auth.keys.hash", "workflow.auth"),
        ("auth.keys.hash", "workflow.auth.keys"),
        ("auth.keys.hash", "node.auth.keys.hash"),
        ("nodes.key", "node.key"),
    ] {
        let text = format!(
            "[users]\napi_key_field = \"{field}\"\n[queue.data]\na = {{ b = \"{{{path}}}\" }}\n"
        );
        assert_fault(&text, "queue.data.a.b", &format!("{{{path}}} has API keys"));
    }
    let text = "[users]\napi_key_field = \"auth.keys\"\n[queue.data]\na = \"{workflowId}\"\n\
        b = [\"{workflow.auth.name}\", \"{workflow.authors}\", \"{node.keys}\"]\n";
    assert_eq!(check(text, &[]).0, Some(0));
}

/// Faults of values and faults of what they reveal are reported together, each with its place.
#[test]
fn credentials_in_a_faulty_template_are_reported_too() {
    let text = "[queue.data]\na = \"{nothing}\"\nb = [1, \"{node.x} {workflow.apiKey.k}\"]\n\
        c = \"{payload} {workflow.apiKey}\"\nd = \"{workflow.apiKey}\"\n";
    let (code, out) = check(text, &[]);
    assert_eq!(code, Some(2));
    for expected in [
        "queue.data.a: unknown placeholder {nothing}",
        "queue.data.b[1]: {workflow.apiKey.k} has API keys",
        "queue.data.c: {payload} in",
        "queue.data.c: {workflow.apiKey} has API keys",
        "queue.data.d: {workflow.apiKey} has API keys",
    ] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
}

/// Such values are written for each job, because no order puts them after all values of a job.
#[test]
fn values_that_are_written_for_each_job_are_warned_of() {
    let warnings = |template: &str| -> Vec<String> {
        let (code, out) =
            check(&format!("[queue.data]\nw = \"{{workflowId}}\"\n{template}\n"), &[]);
        assert_eq!(code, Some(0), "{out}");
        let lines = out.lines().filter(|line| line.contains("once per job"));
        lines.map(str::to_owned).collect()
    };
    for (template, expected) in [
        ("a = { b = [1, \"{payload}\", \"{nodeId}\"] }", "queue.data.a.b[1]: {payload} is"),
        ("a = \"{rawBody} {workflow.x}\"", "queue.data.a: {rawBody} is"),
        ("a = [\"{query}\", \"{nodeIds}\"]", "queue.data.a[0]: {query} is"),
        (
            "a = { b = \"{body}\", n = \"{nodeId}\" }\nc = { h = \"{headers}\", n = \"{nodeId}\" }",
            "queue.data.c.h: {headers} is",
        ),
    ] {
        let found = warnings(template);
        assert!(found.len() == 1 && found[0].contains(expected), "{template}: {found:?}");
    }
    for template in [
        "a = { b = [1, \"{nodeId}\", \"{payload}\"] }",
        "a = \"{workflow.x} {rawBody}\"\nb = \"{query}\"\nc = \"{headers}\"",
        "a = [\"{requestId}\", \"{method}\", \"{nodeId}\"]",
        "a = { b = \"{body}\", n = \"{nodeId}\" }",
    ] {
        assert_eq!(warnings(template), [""; 0], "{template}");
    }
}

#[test]
fn the_environment_sets_only_the_whole_table() {
    let file = "[queue.data]\na = \"{payload}!\"\n";
    let set = |value| [("HOOKGATE__QUEUE__DATA", value)];
    let (code, out) = check(file, &set("{ flowId = \"{workflowId}\", b = [1, true] }"));
    assert_eq!(code, Some(0), "{out}");
    let (code, out) = check(file, &set("{ flowId = \"{workflwId}\" }"));
    let expected = "queue.data.flowId: unknown placeholder {workflwId}; did you mean {workflowId}?";
    assert!(code == Some(2) && out.contains(expected), "{out}");
    assert!(out.contains("(set by the environment)"), "{out}");
    let (code, out) = check("", &set("{workflowId}"));
    assert!(code == Some(2) && out.contains("queue.data: not a table"), "{out}");
    let (code, out) = check("", &[("HOOKGATE__QUEUE__DATA__FLOWID", "{workflowId}")]);
    let expected =
        "queue.data.flowid: cannot be set alone; HOOKGATE__QUEUE__DATA sets the whole table";
    assert!(code == Some(2) && out.contains(expected), "{out}");
}

#[test]
fn a_template_that_is_hardly_meant_is_warned_of() {
    for (text, expected) in [
        (
            "[queue.data]\na = \"{payload}\"\n",
            "queue.data: contains neither {workflowId} nor {workflow._id}: a worker cannot tell",
        ),
        (
            "[queue.data]\na = \"{workflowId}\"\nb = \"{headers}\"\n",
            "queue.data: {headers} is always {}",
        ),
        ("[queue]\nforward_headers = [\"x-a\"]\n", "queue.forward_headers: has no effect"),
        (
            "[queue.data]\na = \"{workflowId}\"\nb = { c = \"{{payload}}\" }\n",
            "queue.data.b.c: \"{{payload}}\" is the text \"{payload}\"; for the value write",
        ),
    ] {
        let (code, out) = check(text, &[]);
        assert!(code == Some(0) && out.contains(expected), "{out}");
    }
    for id in ["{workflowId}", "flows/{workflow._id}"] {
        let (_, out) = check(&format!("[queue.data]\na = \"{id}\"\n"), &[]);
        assert!(!out.contains("queue."), "{out}");
    }
    let (_, out) = check(
        "[queue]\nforward_headers = [\"x-a\"]\n[queue.data]\na = \"{workflowId}\"\nb = \"{headers}\"\n",
        &[],
    );
    assert!(!out.contains("queue."), "{out}");
}

/// In TOML, what follows `[queue.data]` is a part of it.
#[test]
fn a_key_of_the_queue_among_the_data_is_warned_of() {
    let warning = |name: &str| {
        format!(
            "queue.data.{name}: has the name of a key of [queue]; if that is meant, put it above \
             [queue.data]"
        )
    };
    for (name, value) in [
        ("forward_headers", "[\"x-a\"]"),
        ("forward_headers", "[]"),
        ("prefix", "\"engine\""),
        ("job_name", "\"run\""),
        ("redis", "\"redis://h:a-secret@h/0\""),
        ("events", "false"),
        ("connections", "2"),
    ] {
        let (code, out) =
            check(&format!("[queue.data]\nid = \"{{workflowId}}\"\n{name} = {value}\n"), &[]);
        assert!(code == Some(0) && out.contains(&warning(name)), "{name}: {out}");
        assert!(!out.contains("a-secret"), "{out}");
    }
    let text = "[queue.data]\nid = \"{workflowId}\"\nprefix = \"{bull}\"\n";
    assert_fault(text, "queue.data.prefix", "unknown placeholder {bull}");
    assert_fault(text, "queue.data.prefix", "; it has the name of a key of [queue]; if that is");
    // A value that is no value of the key is meant for the data.
    for member in ["name = \"{workflow.name}\"", "events = 1", "prefix = { a = 1 }", "x = []"] {
        let (code, out) = check(&format!("[queue.data]\nid = \"{{workflowId}}\"\n{member}\n"), &[]);
        assert!(code == Some(0) && !out.contains("has the name of a key"), "{member}: {out}");
    }
}

/// A payload that cannot be encoded once for all jobs needs memory for each of them.
#[test]
fn the_memory_budget_counts_templates_that_repeat_the_body() {
    let budget = |template: &str| -> Vec<Value> {
        let files = Scratch::new("job-data");
        let file = files.write("hookgate.toml", format!("[queue.data]\n{template}\n"));
        let output = command(&["check", "--json", "--config"]).arg(file).output().expect("it runs");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["memory"]["bounds"].as_array().expect("bounds").clone()
    };
    let has_fanout =
        |template: &str| budget(template).iter().any(|part| part[0] == "queue.max_fanout_bytes");
    assert!(!has_fanout("a = \"{payload}\"\nw = \"{workflowId}\"\nh = \"{headers}\""));
    assert!(has_fanout("a = [\"{payload}\", \"{workflowId}\"]"));
    assert!(has_fanout("a = \"{rawBody} {workflowId}\""));
    assert!(has_fanout("a = [\"{query}\", \"{workflowId}\"]"));
}
