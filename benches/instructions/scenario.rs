//! The requests whose instructions are counted.

use crate::body::body;
use std::net::SocketAddr;
use testkit::Documents;
use testkit::documents::{user, workflow};
use testkit::raw::Connection;
use testkit::tokens::{claims, token};

const API_KEY: &str = "hg_0123456789abcdef0123456789abcdef01234567";

/// One request, which is repeated.
pub struct Scenario {
    pub name: &'static str,
    request: Vec<u8>,
    matches: u64,
    /// Callers that send at a time; the next round begins when all are answered. The scheduler
    /// decides which requests of a round share a call to Redis, and hardly differs from pass to
    /// pass.
    callers: u64,
    rounds: u64,
    /// The shape of the data of jobs; `None` for the built-in one.
    pub template: Option<&'static str>,
}

/// Ten ids and constants, and the payload.
const TEMPLATE: &str = r#"
jobType = "EXECUTE_WEBHOOK"
schemaVersion = 4
priority = "normal"
flowId = "{workflowId}"
tenantId = "{organizationId}"
actorId = "{userId}"
hookId = "{webhookId}"
correlationId = "{requestId}"
startNode = "{nodeId}"
source = "webhook"
input = "{payload}"
"#;

/// A typical webhook, each sent after the answer to the one before, and variations of it.
pub fn all() -> [Scenario; 7] {
    let (jwt, small) = (token(&claims("org_a", "user_1")), body("wh_1", 150));
    let one = || Scenario {
        name: "one_match",
        request: request(&jwt, &small),
        matches: 1,
        callers: 1,
        rounds: 1000,
        template: None,
    };
    [
        one(),
        Scenario { name: "api_key", request: request(API_KEY, &small), ..one() },
        Scenario {
            name: "no_match",
            request: request(&jwt, &body("wh_unknown", 150)),
            matches: 0,
            ..one()
        },
        Scenario {
            name: "hundred_matches",
            request: request(&jwt, &body("wh_100", 150)),
            matches: 100,
            rounds: 100,
            ..one()
        },
        Scenario {
            name: "large_body",
            request: request(&jwt, &body("wh_1", 64 << 10)),
            rounds: 200,
            ..one()
        },
        Scenario { name: "sixteen_callers", callers: 16, rounds: 100, ..one() },
        Scenario { name: "template", template: Some(TEMPLATE), ..one() },
    ]
}

pub fn documents() -> Documents {
    let mut workflows = vec![workflow("665f1c2e9b3e4a0012ab34cd", "org_a", "wh_1")];
    workflows.extend((0..100).map(|n| workflow(&format!("wf_{n}"), "org_a", "wh_100")));
    Documents { workflows, users: vec![user("user_1", "org_a", API_KEY)] }
}

impl Scenario {
    pub async fn connect(&self, address: SocketAddr) -> Vec<Connection> {
        let mut connections = Vec::new();
        for _ in 0..self.callers {
            connections.push(Connection::open(address).await);
        }
        connections
    }

    pub async fn carry_out(&self, callers: &mut [Connection]) {
        for _ in 0..self.rounds {
            for caller in &mut *callers {
                caller.send(&self.request).await;
            }
            for caller in &mut *callers {
                let reply = caller.reply().await.expect("an answer");
                assert_eq!(reply.matched(), self.matches, "{}", self.name);
            }
        }
    }

    pub fn requests(&self) -> u64 {
        self.rounds * self.callers
    }

    pub fn jobs(&self) -> u64 {
        self.requests() * self.matches
    }
}

/// A request with the headers that callers usually send.
fn request(credential: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /api/webhook/workflow HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: example/1.0\r\nAccept: */*\r\n\
         Authorization: Bearer {credential}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
