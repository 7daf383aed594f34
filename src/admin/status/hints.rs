//! What to do about a problem of `/readyz`. The table of docs/operating/finding-faults.md says
//! more.

use crate::process::lifecycle::Problem;

/// The beginning of a part's name, words of the problem, and what to do. The first row that fits
/// applies; no words fit every problem of the part.
const HINTS: &[(&str, &str, &str)] = &[
    ("process", "draining", "It was asked to stop and finishes the requests that it has begun."),
    ("redis", "not started", "The first check of Redis has not ended yet."),
    (
        "redis",
        "does not answer",
        "Check the address in queue.redis, the network, the password and TLS. Jobs cannot be added \
         until Redis answers; requests get 503.",
    ),
    ("redis", "may not", "Give the user of Hookgate this right on this server."),
    ("redis", "hookgate_queue_jobs", "Give the user of Hookgate the rights +llen and +zcard."),
    ("redis", "is full", "Start workers, raise maxmemory, or remove finished jobs."),
    ("redis", "loading", "Wait until Redis has loaded its data."),
    ("redis", "is a replica", "Repair the primary, or wait until the failover has ended."),
    ("redis", "refuses", "The words of Redis follow; repair what they name."),
    ("redis", "queue.wait_replicas", "Replicas are missing or slow: look at INFO replication."),
    ("redis", "connections for jobs", "Wait; the connections are opened again."),
    ("redis", "append-only", "Switch on the append-only file, or a restart of Redis loses jobs."),
    ("redis", "maxmemory-policy", "Set maxmemory-policy noeviction, or Redis may evict jobs."),
    ("redis", "", "Look at the log of Hookgate and at INFO of this Redis."),
    (
        "workflows",
        "does not exist",
        "Check mongodb.database and triggers.collection: a wrong name is the usual cause.",
    ),
    (
        "users",
        "does not exist",
        "Check mongodb.database and users.collection: a wrong name is the usual cause.",
    ),
    (
        "",
        "not authorized",
        "A right is missing, or the database or the collection has another name.",
    ),
    ("", "snapshot of", "The snapshot on disk is served until the source answers."),
    (
        "workflows",
        "",
        "Check the source of the documents: its address, the network, TLS and rights, or the file.",
    ),
    (
        "users",
        "",
        "Check the source of the documents: its address, the network, TLS and rights, or the file.",
    ),
    ("token keys", "", "Check auth.jwt.jwks_file or jwks_url; the last good set stays in use."),
    ("tls", "", "Replace the certificate and key by valid ones; the old ones stay in use."),
    ("snapshot", "", "Check the disk, its rights, and whether another process uses the file."),
];

/// What to do about a problem; `None` if nothing is known about it.
pub(super) fn hint(problem: &Problem, all: &[Problem]) -> Option<String> {
    let Problem { part, text, .. } = problem;
    if part == "process" && text == "not started" {
        return Some(starting(all));
    }
    let fits = |(beginning, words, _): &&(&str, &str, &str)| {
        part.starts_with(beginning) && text.contains(words)
    };
    HINTS.iter().find(fits).map(|(_, _, hint)| (*hint).to_owned())
}

/// What a process that is starting waits for.
fn starting(all: &[Problem]) -> String {
    let blocking = all.iter().filter(|problem| problem.is_blocking && problem.part != "process");
    let parts: Vec<&str> = blocking.map(|problem| problem.part.as_str()).collect();
    if parts.is_empty() {
        return "Still starting: it opens its port now.".to_owned();
    }
    format!("Still starting: it waits for {}.", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(part: &str, text: &str) -> Problem {
        Problem { part: part.to_owned(), text: text.to_owned(), is_blocking: true }
    }

    #[test]
    fn a_process_that_starts_names_what_it_waits_for() {
        let own = problem("process", "not started");
        let all = [own.clone(), problem("redis (a)", "x"), problem("workflows", "y")];
        let expected = "Still starting: it waits for redis (a), workflows.";
        assert_eq!(hint(&own, &all).unwrap(), expected);
        assert!(hint(&own, &all[..1]).unwrap().contains("opens its port"));
    }

    #[test]
    fn problems_have_hints() {
        for (part, text, words) in [
            ("redis", "does not answer: connection refused", "queue.redis"),
            ("redis (a)", "not ready: does not answer: connection lost", "queue.redis"),
            ("redis", "something else", "INFO"),
            ("users", "collection does not exist", "users.collection"),
            ("workflows", "not authorized on x", "right"),
            ("workflows", "not loaded yet", "source"),
            ("snapshot", "no space", "disk"),
        ] {
            let hint = hint(&problem(part, text), &[]).unwrap();
            assert!(hint.contains(words), "{part} {text}: {hint}");
        }
        assert_eq!(hint(&problem("other", "x"), &[]), None);
    }
}
