//! Calls of the script that Redis refuses after the record of the producer was written: nothing of
//! the batch remains, and the same batch is added once the fault is gone.

use redis::{Cmd, RedisResult, Value, cmd};
use testkit::Redis;

const ADD_JOBS: &str = include_str!("../../../src/queue/batch/add_jobs.lua");

/// A key of the queue, how it is made unusable, and how it is repaired.
const FAULTS: &[(&str, &str, &str)] = &[
    ("meta of a wrong type", "SET q:meta x", "DEL q:meta"),
    ("id of a wrong type", "DEL q:id; HSET q:id x 1", "DEL q:id; SET q:id 100"),
    ("id that is no number", "SET q:id x", "SET q:id 100"),
    ("ids used up", "SET q:id 9007199254740991", "SET q:id 100"),
    ("id beyond 64 bits", "SET q:id 9223372036854775807", "SET q:id 100"),
    ("wait of a wrong type", "SET q:wait x", "DEL q:wait"),
    ("no memory", "CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
    ("a replica", "REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    (
        "too few replicas",
        "CONFIG SET min-replicas-to-write 1",
        "CONFIG SET min-replicas-to-write 0",
    ),
];

#[tokio::test]
async fn a_refused_batch_is_added_by_the_next_attempt() {
    let redis = Redis::start().await;
    for (fault, damage, repair) in FAULTS {
        // Alone, and after batches whose outcomes are still needed.
        for earlier in [&[][..], &[1], &[1, 2]] {
            let () = redis.query(&command("FLUSHALL")).await;
            for number in earlier {
                assert_eq!(call(&redis, *number, 0).await.expect(fault), "*");
            }
            let added = earlier.len();
            run(&redis, damage).await;
            call(&redis, 3, 0).await.expect_err(fault);
            run(&redis, repair).await;
            assert_eq!(jobs(&redis).await.len(), if *repair == "DEL q:wait" { 0 } else { added });
            assert_eq!(hashes(&redis).await, added, "{fault}: a job without a place in a list");

            assert_eq!(call(&redis, 3, 0).await.expect(fault), "*", "{fault}: the next attempt");
            assert_eq!(hashes(&redis).await, added + 1, "{fault}");
            for number in earlier.iter().chain(&[3]) {
                assert_eq!(call(&redis, *number, 0).await.expect(fault), "*", "{fault}: again");
            }
            assert_eq!(hashes(&redis).await, added + 1, "{fault}: a batch was added twice");
        }
    }
}

#[tokio::test]
async fn an_unreadable_record_is_kept_and_its_batch_refused() {
    let redis = Redis::start().await;
    for record in ["x", "x 1=*"] {
        let () = redis.query(cmd("SET").arg(&["producer", record])).await;
        for _ in 0..2 {
            call(&redis, 1, 0).await.expect_err("the record has no mark");
        }
        let kept: String = redis.query(&command("GET producer")).await;
        assert_eq!((&*kept, hashes(&redis).await), (record, 0));
    }
}

#[tokio::test]
async fn jobs_are_added_although_events_and_marker_are_unusable() {
    let redis = Redis::start().await;
    for key in ["q:events", "q:marker"] {
        let () = redis.query(&command(&format!("SET {key} x"))).await;
    }
    assert_eq!(call(&redis, 1, 0).await.expect("added"), "*");
    assert_eq!((jobs(&redis).await.len(), hashes(&redis).await), (1, 1));
}

#[tokio::test]
async fn a_full_redis_still_reports_what_it_has_added() {
    let redis = Redis::start().await;
    for number in [1, 2] {
        assert_eq!(call(&redis, number, 0).await.expect("added"), "*");
    }
    let () = redis.query(&command("CONFIG SET maxmemory 1")).await;
    assert_eq!(call(&redis, 2, 0).await.expect("a recorded outcome"), "*");
    call(&redis, 3, 0).await.expect_err("Redis is full");
}

/// Sends a batch with one job, and returns its result.
async fn call(redis: &Redis, number: u64, mark: u64) -> RedisResult<String> {
    let keys =
        ["q:wait", "q:paused", "q:meta", "q:id", "q:events", "q:marker", "q:active", "producer"];
    let (number, mark) = (number.to_string(), mark.to_string());
    let arguments =
        ["q:", "job", "{}", "auto", "1", "600000", &number, &mark, "9999999999999", "1", "1"];
    let mut eval = cmd("EVAL");
    eval.arg(ADD_JOBS).arg(keys.len()).arg(&keys).arg(&arguments).arg("{\"workflowId\":\"wf\"}");
    let reply: Value = eval.query_async(&mut redis.connect().await).await?;
    let reply: String = redis::from_redis_value(reply)?;
    Ok(reply.split(' ').next_back().expect("a result").to_owned())
}

async fn jobs(redis: &Redis) -> Vec<String> {
    redis.query(&command("LRANGE q:wait 0 -1")).await
}

/// The number of hashes of jobs.
async fn hashes(redis: &Redis) -> usize {
    let keys: Vec<String> = redis.query(&command("KEYS q:[0-9]*")).await;
    keys.len()
}

async fn run(redis: &Redis, commands: &str) {
    for words in commands.split("; ") {
        let () = redis.query(&command(words)).await;
    }
}

fn command(words: &str) -> Cmd {
    let mut words = words.split(' ');
    let mut command = cmd(words.next().expect("a name"));
    words.for_each(|word| {
        command.arg(word);
    });
    command
}
