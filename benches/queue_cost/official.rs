//! BullMQ's own port to Rust.

use std::sync::Arc;

use bullmq::options::RedisConnectionOptions;
use bullmq::{BulkJob, JobOptions, Queue, QueueOptions};

use crate::jobs::{Jobs, share_out};
use crate::meter::{Cost, Meter, QUEUE, own_time_of};
use crate::{How, NAME, WARM_UP, new_runtime};

pub fn measure(url: &str, jobs: &Jobs, options: &str, how: How, meter: &mut Meter) -> Cost {
    let runtime = new_runtime();
    let queue = Arc::new(runtime.block_on(open(url, options)));
    runtime.block_on(add(&queue, &jobs.first(WARM_UP), how));
    meter.measure(jobs, true, || own_time_of(|| runtime.block_on(add(&queue, jobs, how))))
}

async fn open(url: &str, options: &str) -> Queue {
    let connection = RedisConnectionOptions { url: url.to_owned(), ..Default::default() };
    let default_job_options: JobOptions = serde_json::from_str(options).unwrap();
    let options = QueueOptions { connection, default_job_options, ..QueueOptions::default() };
    Queue::with_options(QUEUE, options).await.unwrap()
}

async fn add(queue: &Arc<Queue>, jobs: &Jobs, how: How) {
    match how {
        How::Add { callers } => {
            let (queue, all) = (Arc::clone(queue), jobs.clone());
            share_out(callers, jobs.len(), move |index| {
                let (queue, jobs) = (Arc::clone(&queue), all.clone());
                async move {
                    queue.add(NAME, &jobs.webhooks[index].data).await.unwrap();
                }
            })
            .await;
        }
        How::AddBulk { size } => {
            for webhooks in jobs.webhooks.chunks(size) {
                let bulk = webhooks.iter().map(|webhook| BulkJob::new(NAME, &webhook.data));
                queue.add_bulk(bulk.collect()).await.unwrap();
            }
        }
    }
}
