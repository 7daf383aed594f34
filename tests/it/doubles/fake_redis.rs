//! Tests of the fake Redis: it gives the answers that are set, and otherwise those of the real one.

use redis::cmd;
use testkit::fake_redis::{Answer, Call};
use testkit::raw_redis::{COUNT, Client, clients, runs};
use testkit::resp::{self, Stop};
use testkit::wait::until;
use testkit::{App, FakeRedis, Redis};

#[test]
fn the_ends_of_requests_and_replies_are_found() {
    let request = resp::encode(&[&b"SET"[..], b"", b"\r\n$"]);
    assert_eq!(request, b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$3\r\n\r\n$\r\n");
    let replies: [&[u8]; 7] =
        [b"+OK\r\n", b"-ERR no\r\n", b":-3\r\n", b"$-1\r\n", b"*-1\r\n", b"$3\r\n\r\n$\r\n", {
            b"*3\r\n*2\r\n:1\r\n$1\r\na\r\n$-1\r\n*0\r\n"
        }];
    for end in 0..request.len() {
        assert_eq!(resp::request(&request[..end]), Err(Stop::Short));
    }
    let longer = [&request[..], b"*1"].concat();
    assert_eq!(resp::request(&longer), Ok((vec![&b"SET"[..], b"", b"\r\n$"], request.len())));
    for reply in replies {
        for end in 0..reply.len() {
            assert_eq!(resp::reply_length(&reply[..end]), Err(Stop::Short));
        }
        assert_eq!(resp::reply_length(&[reply, b"+"].concat()), Ok(reply.len()));
    }
    assert_eq!(resp::request(b"PING\r\n"), Err(Stop::Malformed));
    assert_eq!(resp::reply_length(b"HTTP/1.1 200\r\n"), Err(Stop::Malformed));
    assert_eq!(resp::reply_length(b"$1\r\nab\r\n"), Err(Stop::Malformed));
}

#[tokio::test]
async fn the_fake_gives_its_set_answers_and_otherwise_the_real_ones() {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    let mut client = Client::to(fake.port()).await;
    client.ask(&["SET", "key", "value"]).await;
    client.expect_bytes("+OK\r\n").await;
    for (answer, replies, expected) in [
        (Answer::Real, ":1\r\n", 1),
        (Answer::instead("-OOM full\r\n"), "-OOM full\r\n", 1),
        (Answer::after_running("*-1\r\n"), "*-1\r\n", 2),
        (Answer::before("?!"), "?!:3\r\n", 3),
        (Answer::after("+more\r\n"), ":4\r\n+more\r\n", 4),
    ] {
        fake.answer_next("eval", answer);
        client.ask(&["GET", "key"]).await;
        client.expect_bytes("$5\r\nvalue\r\n").await;
        client.ask(COUNT).await;
        client.expect_bytes(replies).await;
        assert_eq!(runs(&redis).await, expected);
        assert_eq!(fake.answers_left(), 0);
    }
    assert_eq!(fake.calls_of("EVAL").len(), 5);
    let call = fake.calls().pop().expect("a call");
    assert_eq!((call.connection, call.name().as_str(), call.text(2)), (1, "EVAL", "0".to_owned()));

    fake.answer_always("PING", Answer::instead("-LOADING\r\n"));
    for _ in 0..2 {
        client.ask(&["PING"]).await;
        client.expect_bytes("-LOADING\r\n").await;
    }
    fake.answer_normally();
    client.ask(&["PING"]).await;
    client.expect_bytes("+PONG\r\n").await;
}

#[tokio::test]
async fn the_fake_swaps_truncates_and_withholds_replies() {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    let mut client = Client::to(fake.port()).await;
    fake.answer_next("EVAL", Answer::Swapped);
    client.send([resp::encode(COUNT), resp::encode(COUNT), resp::encode(&["PING"])].concat()).await;
    client.expect_bytes(":2\r\n:1\r\n+PONG\r\n").await;

    fake.answer_next("ECHO", Answer::HalfThenClose);
    client.ask(&["ECHO", "12345678"]).await;
    assert_eq!(client.rest().await, (b"$8\r\n123".to_vec(), false));

    let mut client = Client::to(fake.port()).await;
    fake.answer_next("EVAL", Answer::Close);
    client.ask(COUNT).await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    assert_eq!(runs(&redis).await, 2);

    let mut client = Client::to(fake.port()).await;
    fake.answer_next("EVAL", Answer::Silence);
    client.send([resp::encode(COUNT), resp::encode(&["PING"])].concat()).await;
    until("redis has run the script", async || runs(&redis).await == 3).await;
    client.hears_nothing().await;

    let client = Client::to(fake.port()).await;
    until("redis has both connections", async || clients(&redis).await >= 2).await;
    let _: u64 = redis.query(cmd("CLIENT").arg(&["KILL", "TYPE", "normal"])).await;
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn hookgate_works_through_the_fake_which_records_its_calls() {
    let redis = Redis::start().await;
    let fake = FakeRedis::before(&redis).await;
    let app = App::build().redis(redis).redis_address(&fake.url()).start().await;
    assert_eq!(app.webhook("wh_1").send().await.matched(), 1);
    let job = app.redis.queue().only_job().await;
    assert!(!fake.calls_of("INFO").is_empty(), "the health check uses the proxy as well");
    let calls = fake.calls_of("EVAL");
    let names: Vec<_> = calls.iter().map(Call::name).collect();
    let was_loaded = names.windows(2).any(|pair| pair == ["EVALSHA", "EVAL"]);
    assert!(was_loaded, "the script was loaded: {names:?}");
    let data = job.data_text().as_bytes();
    assert!(
        calls
            .iter()
            .flat_map(|call| &call.arguments)
            .any(|argument| !argument.is_empty() && data.ends_with(argument))
    );

    fake.answer_next("EVAL", Answer::instead("-OOM command not allowed\r\n"));
    app.webhook("wh_1").send().await.assert_rejected(503, "queue_unavailable");
    assert_eq!(fake.answers_left(), 0);
    app.redis.queue().only_job().await;
    app.assert_accounting().await;
}
