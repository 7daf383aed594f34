//! A shard is added while requests arrive, as `docs/operating/splitting-the-queue.md` says: workers
//! first, and then one Hookgate after the other.

use std::collections::BTreeMap;

use testkit::hookgate::Hookgate;
use testkit::http::Caller;
use testkit::node::{self, Closed, Worker};
use testkit::scratch::Scratch;
use testkit::{Config, Redis};

use super::load::{Landed, Load, documents, judge, organizations, token_of};
use super::{name, servers, set_shards, shards_at};

/// The number of the shard that is added.
const NEW: usize = 3;

#[tokio::test]
async fn a_shard_is_added_under_load() {
    let files = Scratch::new("growth");
    let shards = servers(NEW).await;
    let mut workers = start_workers(&shards).await;
    let mut hookgates = [start(&files, &shards).await, start(&files, &shards).await];
    let load = Load::start(&hookgates.each_ref().map(|one| Caller::new(one.address())));
    load.more_accepted(150).await;
    let before = landed(&shards).await.only_queues();

    let shards: Vec<Redis> = shards.into_iter().chain(servers(1).await).collect();
    workers.extend(start_workers_from(NEW, &shards).await);
    for hookgate in &mut hookgates {
        assert_eq!(hookgate.terminate().await, 0);
        configure(&mut hookgate.config, &shards);
        hookgate.restart().await;
        // The first time, one Hookgate knows the new shard and the other does not.
        load.more_accepted(150).await;
    }
    let ledger = load.stop().await;

    let closed = close_when_idle(workers, &shards).await;
    let landed = landed(&shards).await;
    let verdict = judge(&ledger, &landed);
    verdict.assert_sound();
    assert_eq!(verdict.unknown, 0, "{verdict}");
    for (number, Closed { completed, failed }) in closed.iter().enumerate() {
        assert_eq!((completed.len(), failed.len()), (landed.count(number), 0), "shard {number}");
    }
    assert_moved_only_to_the_new(&before, &landed);
    for hookgate in &hookgates {
        assert_new_requests_agree(hookgate, &before, &shards).await;
    }
}

#[tokio::test]
async fn a_key_of_an_organization_that_moves_is_not_known_at_its_new_shard() {
    let files = Scratch::new("growth");
    let shards = servers(NEW + 1).await;
    let mut hookgate = start(&files, &shards[..NEW]).await;
    let answers = send_keyed(&hookgate).await;
    assert!(answers.values().all(|is_replayed| !is_replayed));
    let before = jobs_of_each(&shards).await;
    assert_eq!(hookgate.terminate().await, 0);
    configure(&mut hookgate.config, &shards);
    hookgate.restart().await;
    let answers = send_keyed(&hookgate).await;
    let after = jobs_of_each(&shards).await;
    let moved = answers.values().filter(|is_replayed| !**is_replayed).count();
    assert!(0 < moved && moved < answers.len(), "{answers:?}");
    // Those that stayed have started nothing again, and those that moved did so at the new one.
    assert_eq!(after[..NEW], before[..NEW]);
    assert_eq!((before[NEW], after[NEW]), (0, moved));
}

async fn start_workers(shards: &[Redis]) -> Vec<Worker> {
    start_workers_from(0, shards).await
}

async fn start_workers_from(first: usize, shards: &[Redis]) -> Vec<Worker> {
    let mut workers = Vec::new();
    for (number, redis) in shards.iter().enumerate().skip(first) {
        workers.push(Worker::start(redis, &name(number), &[]).await);
    }
    workers
}

async fn start(files: &Scratch, shards: &[Redis]) -> Hookgate {
    let mut config = Config::new();
    let file = files.write("workflows.json", documents().to_json());
    config.set("triggers.file", file.to_str().expect("a path in UTF-8"));
    configure(&mut config, shards);
    Hookgate::start(config).await
}

fn configure(config: &mut Config, shards: &[Redis]) {
    set_shards(config, shards_at(shards.iter().map(Redis::url)));
}

async fn landed(shards: &[Redis]) -> Landed {
    let queues = shards.iter().enumerate();
    let queues: Vec<(&Redis, &str, String)> =
        queues.map(|(number, redis)| (redis, "bull", name(number))).collect();
    Landed::read(&queues).await
}

/// Returns what each worker has done.
async fn close_when_idle(workers: Vec<Worker>, shards: &[Redis]) -> Vec<Closed> {
    let mut closed = Vec::new();
    for (number, (worker, redis)) in workers.into_iter().zip(shards).enumerate() {
        node::idle(redis, &name(number)).await;
        closed.push(worker.close().await);
    }
    closed
}

fn assert_moved_only_to_the_new(before: &BTreeMap<String, usize>, landed: &Landed) {
    let mut moved = 0;
    for (organization, queues) in landed.queues() {
        let old = before[&organization];
        assert!(
            queues.iter().all(|queue| [old, NEW].contains(queue)),
            "{organization} had shard {old}, and has jobs in {queues:?}"
        );
        moved += usize::from(queues.contains(&NEW));
    }
    assert!(0 < moved && moved < organizations().len(), "{moved} have moved");
}

/// Sends a request of each organization, and asserts that its shard is its old one or the new one.
async fn assert_new_requests_agree(
    hookgate: &Hookgate,
    before: &BTreeMap<String, usize>,
    shards: &[Redis],
) {
    for redis in shards {
        let () = redis.query(redis::cmd("FLUSHALL").arg("SYNC")).await;
    }
    let caller = Caller::new(hookgate.address());
    for organization in organizations() {
        let body = format!(r#"{{"webhookId":"wh_1","request":"{organization}/last"}}"#);
        let reply = caller.post(body).bearer(&token_of(&organization)).send().await;
        assert_eq!(reply.matched(), 1);
    }
    let after = landed(shards).await.only_queues();
    let moved = after.iter().filter(|&(organization, queue)| before[organization] != *queue);
    assert!(moved.clone().count() > 0);
    assert!(moved.clone().all(|(_, queue)| *queue == NEW), "{before:?} {after:?}");
}

/// Sends a request with an idempotency key for each organization, and returns whether it was known.
async fn send_keyed(hookgate: &Hookgate) -> BTreeMap<String, bool> {
    let caller = Caller::new(hookgate.address());
    let mut replayed = BTreeMap::new();
    for organization in organizations() {
        let call = caller.webhook("wh_1").bearer(&token_of(&organization));
        let reply = call.header("idempotency-key", "the-same").send().await;
        assert_eq!(reply.matched(), 1);
        replayed.insert(organization, reply.header("idempotency-replayed").is_some());
    }
    replayed
}

/// The number of jobs of each shard.
async fn jobs_of_each(shards: &[Redis]) -> Vec<usize> {
    let landed = landed(shards).await;
    (0..shards.len()).map(|number| landed.count(number)).collect()
}
