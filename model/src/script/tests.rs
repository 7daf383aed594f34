use super::*;
use crate::safeguards::Safeguards;

/// A call by a producer of this name, with these requests.
fn batch(producer: &str, number: u64, mark: u64, requests: Vec<Request>) -> Batch {
    let [wait, paused, meta, id, events, marker, active] =
        ["wait", "paused", "meta", "id", "events", "marker", "active"].map(Text::from);
    let producer = producer.into();
    let job_prefix = "q:".into();
    Batch {
        keys: Keys { wait, paused, meta, id, events, marker, active, producer, job_prefix },
        job_name: "workflow".into(),
        options: "{}".into(),
        paused_layout: PausedLayout::Auto,
        writes_events: true,
        record_ttl: 1000,
        number,
        mark,
        deadline: 100,
        timestamp: 7,
        is_withdrawal: false,
        requests,
    }
}

fn request(jobs: usize, key: Option<(&str, &str)>) -> Request {
    let key = key.map(|(key, fingerprint)| IdempotencyKey {
        key: key.into(),
        fingerprint: fingerprint.into(),
        ttl: 5000,
    });
    let heads = (0..jobs).map(|job| format!("{{{job},").into()).collect();
    Request { heads, tail: "1}".into(), options: "".into(), key }
}

fn replied(redis: &mut Redis, now: u64, batch: &Batch) -> String {
    match redis.add_jobs(now, batch, Safeguards::ALL) {
        Ok(reply) => reply.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_call_of_the_script_is_parsed() {
    let bytes = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let keys: Vec<Vec<u8>> = bytes(&[
        "q:wait", "q:paused", "q:meta", "q:id", "q:events", "q:marker", "q:active", "p", "key",
    ]);
    let mut arguments: Vec<Vec<u8>> = bytes(&[
        "q:",
        "workflow",
        "{}",
        "v5",
        "1",
        "600",
        "8",
        "6",
        "900",
        "1000",
        "4", //
        "{\"short\":1}",
        "2",
        "{\"a\":1}",
        "0f 700",
        "tail}",
        "{one,",
        "{two,",
        "1",
        "",
        "",
        "}",
        "{",
    ]);
    let batch = Batch::parse(&keys, &arguments).unwrap();
    assert_eq!((batch.number, batch.mark, batch.deadline, batch.timestamp), (8, 6, 900, 1000));
    assert_eq!(batch.record_ttl, 600);
    let heads: Vec<usize> = batch.requests.iter().map(|request| request.heads.len()).collect();
    assert_eq!(heads, [1, 2, 1]);
    let keys_of_requests: Vec<Option<IdempotencyKey>> =
        batch.requests.iter().map(|request| request.key.clone()).collect();
    let key = IdempotencyKey { key: "key".into(), fingerprint: "0f".into(), ttl: 700 };
    assert_eq!(keys_of_requests, [None, Some(key), None]);
    // The number of jobs is not that of the requests.
    arguments[10] = b"3".to_vec();
    assert_eq!(Batch::parse(&keys, &arguments), None);
    arguments.truncate(11);
    arguments[10] = b"-".to_vec();
    assert!(Batch::parse(&keys, &arguments).unwrap().is_withdrawal);
}

#[test]
fn a_batch_is_executed_once() {
    let mut redis = Redis::default();
    let first = batch("p", 1, 0, vec![request(2, None), request(1, None)]);
    assert_eq!(replied(&mut redis, 10, &first), "1 10 *");
    // After the deadline too, because the number is looked up first.
    assert_eq!(replied(&mut redis, 200, &first), "1 200 *");
    assert_eq!(redis.wait, [1, 2, 3]);
    assert_eq!(&*redis.jobs[&2].data, "{1,1}");
    assert_eq!((redis.has_marker, redis.events), (true, 6));
    // Another producer has numbers of its own.
    assert_eq!(replied(&mut redis, 10, &batch("q", 1, 0, vec![request(1, None)])), "1 10 *");
}

#[test]
fn late_and_withdrawn_are_final() {
    let mut redis = Redis::default();
    let late = batch("p", 1, 0, vec![request(1, None)]);
    assert_eq!(replied(&mut redis, 100, &late), "1 100 late");
    assert_eq!(replied(&mut redis, 99, &late), "1 99 late");
    let second = batch("p", 2, 0, vec![request(1, None)]);
    let withdrawal = Batch { is_withdrawal: true, requests: Vec::new(), ..second.clone() };
    assert_eq!(replied(&mut redis, 10, &withdrawal), "2 10 -");
    assert_eq!(replied(&mut redis, 10, &second), "2 10 -");
    assert_eq!(redis.producers["p"].text(), "0 1=late 2=-");
    assert_eq!(replied(&mut redis, 10, &batch("p", 3, 2, vec![request(1, None)])), "3 10 *");
    assert_eq!(redis.producers["p"].text(), "2 3=*");
    assert_eq!(replied(&mut redis, 10, &second), "2 10 stale");
}

#[test]
fn an_idempotency_key_is_used_once() {
    let mut redis = Redis::default();
    let key = |fingerprint| Some(("key", fingerprint));
    let requests = vec![
        request(0, key("a")),
        request(2, key("a")),
        request(2, key("a")),
        request(1, key("b")),
    ];
    assert_eq!(replied(&mut redis, 10, &batch("p", 1, 0, requests)), "1 10 AAR2X");
    assert_eq!(redis.idempotency["key"].text(), "a 2");
    let repeat = batch("p", 2, 0, vec![request(0, key("a"))]);
    assert_eq!(replied(&mut redis, 10, &repeat), "2 10 R2");
    // Its record has expired.
    let later = Batch { deadline: 9000, ..batch("p", 3, 0, vec![request(1, key("b"))]) };
    assert_eq!(replied(&mut redis, 5011, &later), "3 5011 *");
    assert_eq!(redis.wait.len(), 3);
}

#[test]
fn each_record_lives_as_long_as_its_request_says() {
    let with_ttl = |name, ttl| {
        let request = request(1, Some((name, "a")));
        let key = request.key.map(|key| IdempotencyKey { ttl, ..key });
        Request { key, ..request }
    };
    let mut redis = Redis::default();
    // The first request of a key decides.
    let requests = vec![with_ttl("short", 100), with_ttl("long", 9000), with_ttl("short", 9000)];
    assert_eq!(replied(&mut redis, 10, &batch("p", 1, 0, requests)), "1 10 AAR1");
    let ends = ["short", "long"].map(|key| redis.idempotency[key].expires_at);
    assert_eq!(ends, [110, 9010]);
    redis.expire_records(111);
    assert_eq!(redis.idempotency.keys().map(|key| &**key).collect::<Vec<_>>(), ["long"]);
}

#[test]
fn a_held_key_fails_its_request_and_the_repeats_of_it() {
    let mut redis = Redis { held_keys: ["q:2".into()].into(), ..Redis::default() };
    let key = Some(("key", "a"));
    let requests = vec![request(2, key), request(1, None), request(2, key)];
    assert_eq!(replied(&mut redis, 10, &batch("p", 1, 0, requests)), "1 10 EAE");
    assert_eq!(redis.wait, [3]);
    assert_eq!(redis.jobs.keys().collect::<Vec<_>>(), [&3]);
    assert!(redis.idempotency.is_empty());
    assert_eq!(redis.producers["p"].text(), "0 1=EAE");
}

/// Nothing is added by a call that ends with an error, whatever raises it.
#[test]
fn an_error_adds_nothing() {
    let refusals = [Refusal::OutOfMemory, Refusal::ReadOnly, Refusal::TooFewReplicas];
    let refusing = refusals
        .map(|refusal| Redis { refusal: Some(refusal), ..Redis::default() })
        .into_iter()
        .chain(Command::ALL.map(|command| Redis { forbidden: Some(command), ..Redis::default() }))
        .chain(
            ["q:1", "q:2", "wait", "id", "meta", "p", "key", "events", "marker"]
                .map(|key| Redis { held_keys: [key.into()].into(), ..Redis::default() }),
        );
    let requests = vec![request(2, Some(("key", "a"))), request(1, None)];
    let mut errors = 0;
    for mut redis in refusing {
        let result = redis.add_jobs(10, &batch("p", 1, 0, requests.clone()), Safeguards::ALL);
        if result.is_err() {
            errors += 1;
            assert_eq!((redis.listed().count(), redis.idempotency.len()), (0, 0), "{redis:?}");
        }
        for id in redis.listed() {
            assert!(redis.jobs.contains_key(&id), "{redis:?}");
        }
    }
    // Three refusals; GET, HMGET, INCRBY, SET, HSET and LPUSH; five keys.
    assert_eq!(errors, 14);
}

#[test]
fn a_replica_reports_nothing_from_its_record() {
    let mut redis = Redis::default();
    let first = batch("p", 1, 0, vec![request(1, None)]);
    assert_eq!(replied(&mut redis, 10, &first), "1 10 *");
    redis.refusal = Some(Refusal::ReadOnly);
    assert!(replied(&mut redis, 10, &first).starts_with("READONLY"));
    // A server that is full reports it: the record can be touched.
    redis.refusal = Some(Refusal::OutOfMemory);
    assert_eq!(replied(&mut redis, 500, &first), "1 500 *");
    assert_eq!(redis.producers["p"].expires_at, 1500);
}

#[test]
fn a_dry_run_is_refused_if_jobs_would_be() {
    let mut redis = Redis::default();
    let dry_run = batch("check", 1, 0, Vec::new());
    assert_eq!(replied(&mut redis, 10, &dry_run), "1 10 *");
    assert_eq!(redis, Redis::default());
    redis.last_id = Counter::Number((1 << 53) - 1);
    assert_eq!(replied(&mut redis, 10, &dry_run), "ERR the ids of the queue are used up");
    assert_eq!(
        replied(&mut redis, 10, &batch("p", 1, 0, vec![request(1, None)])),
        "ERR the ids of the queue are used up"
    );
    redis = Redis { refusal: Some(Refusal::OutOfMemory), ..Redis::default() };
    assert!(replied(&mut redis, 10, &dry_run).starts_with("OOM"));
}

#[test]
fn jobs_of_a_paused_queue_go_where_its_release_expects_them() {
    for (wait, paused, version, layout, expected) in [
        (0, 0, None, PausedLayout::Auto, "paused"),
        (1, 0, None, PausedLayout::Auto, "wait"),
        (0, 1, Some("bullmq:6.0.1"), PausedLayout::Auto, "paused"),
        (0, 0, Some("bullmq:6.0.1"), PausedLayout::Auto, "wait"),
        (1, 1, Some("bullmq:5.61.0"), PausedLayout::Auto, "paused"),
        (1, 0, None, PausedLayout::V5, "paused"),
        (0, 1, None, PausedLayout::V6, "wait"),
    ] {
        let meta = Meta { is_paused: true, version: version.map(Text::from), ..Meta::default() };
        let mut redis = Redis { meta, ..Redis::default() };
        redis.wait.extend((0..wait).map(|_| -1));
        redis.paused.extend((0..paused).map(|_| -1));
        let call = Batch { paused_layout: layout, ..batch("p", 1, 0, vec![request(1, None)]) };
        assert_eq!(replied(&mut redis, 10, &call), "1 10 *");
        let list = if redis.wait.contains(&1) { "wait" } else { "paused" };
        assert_eq!((list, redis.has_marker), (expected, false), "{wait} {paused} {version:?}");
    }
}
