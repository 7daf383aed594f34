//! Webhooks to BullMQ jobs by axum and `bullmq-official`: workflows in a map in memory, no database on the way.

mod workflows;

use anyhow::Context;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bullmq::options::RedisConnectionOptions;
use bullmq::{BulkJob, JobOptions, Queue, QueueOptions};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use workflows::Workflows;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Service {
    key: DecodingKey,
    validation: Validation,
    workflows: Workflows,
    queue: Queue,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    id: String,
    organization_id: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let set = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let service = Service {
        key: DecodingKey::from_secret(set("JWT_SECRET")?.as_bytes()),
        validation: Validation::new(Algorithm::HS256),
        workflows: Workflows::read(&set("WORKFLOWS")?)?,
        queue: open_queue(set("REDIS_URL")?).await?,
    };
    let router =
        Router::new().route("/api/webhook/workflow", post(accept)).with_state(Arc::new(service));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", set("PORT")?.parse()?)).await?;
    Ok(axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        }),
        router,
    )
    .await?)
}

async fn open_queue(url: String) -> anyhow::Result<Queue> {
    let default_job_options: JobOptions = serde_json::from_value(json!({
        "attempts": 3,
        "backoff": { "type": "exponential", "delay": 1000 },
        "removeOnComplete": { "age": 86_400, "count": 10_000 },
        "removeOnFail": { "age": 604_800 },
    }))?;
    let connection = RedisConnectionOptions { url, ..Default::default() };
    let options = QueueOptions { connection, default_job_options, ..Default::default() };
    Ok(Queue::with_options("workflow-runner", options).await?)
}

async fn accept(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(mut payload): Json<Map<String, Value>>,
) -> Result<Response, Response> {
    let received_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = authenticate(&service, &headers)
        .ok_or_else(|| refusal(StatusCode::UNAUTHORIZED, "invalid_token"))?;
    let Some(Value::String(webhook)) = payload.shift_remove("webhookId") else {
        return Err(refusal(StatusCode::BAD_REQUEST, "missing_webhook_id"));
    };
    let matching = service.workflows.matching(&claims.organization_id, &webhook);
    let request_id = uuid::Uuid::now_v7().simple().to_string();
    let data = |workflow: &workflows::Workflow| {
        json!({
            "workflowId": workflow.id,
            "organizationId": claims.organization_id,
            "userId": claims.id,
            "trigger": {
                "type": "WebhookTrigger", "nodeIds": workflow.node_ids,
                "webhookId": webhook, "payload": payload,
            },
            "requestId": request_id,
            "receivedAt": received_at.as_millis() as u64,
        })
    };
    let added = match matching {
        [only] => service.queue.add("workflow", data(only)).await.map(drop),
        several => {
            let jobs = several.iter().map(|workflow| BulkJob::new("workflow", data(workflow)));
            service.queue.add_bulk(jobs.collect()).await.map(drop)
        }
    };
    added.map_err(|_| refusal(StatusCode::SERVICE_UNAVAILABLE, "queue_unavailable"))?;
    let data = json!({ "webhookId": webhook, "matchedCount": matching.len() });
    let answer = json!({ "success": true, "message": "Webhook accepted", "data": data });
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

fn authenticate(service: &Service, headers: &HeaderMap) -> Option<Claims> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let verified = jsonwebtoken::decode::<Claims>(token, &service.key, &service.validation).ok()?;
    Some(verified.claims)
}

fn refusal(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({ "success": false, "code": code }))).into_response()
}
