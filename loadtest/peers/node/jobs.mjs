// Jobs as Hookgate writes them, by BullMQ's own Queue.
import { randomUUID } from "node:crypto";
import { Queue } from "bullmq";
import { Redis } from "ioredis";

const JOB = "workflow";

const queue = new Queue("workflow-runner", {
  connection: new Redis(process.env.REDIS_URL, { enableAutoPipelining: process.env.AUTO_PIPELINING !== "no" }),
  defaultJobOptions: {
    attempts: 3,
    backoff: { type: "exponential", delay: 1000 },
    removeOnComplete: { age: 86_400, count: 10_000 },
    removeOnFail: { age: 604_800 },
  },
});

// Adds a job for each of the workflows; their ids and nodes are what differs between them.
export async function enqueue(workflows, caller, webhookId, payload) {
  const requestId = randomUUID().replaceAll("-", "");
  const receivedAt = Date.now();
  const jobs = workflows.map(({ workflowId, nodeIds }) => ({
    name: JOB,
    data: {
      workflowId,
      organizationId: caller.organizationId,
      userId: caller.id,
      trigger: { type: "WebhookTrigger", nodeIds, webhookId, payload },
      requestId,
      receivedAt,
    },
  }));
  if (jobs.length === 1) await queue.add(JOB, jobs[0].data);
  else if (jobs.length > 1) await queue.addBulk(jobs);
}

// The nodes of a workflow that listen to a webhook.
export function listeners(workflow) {
  const nodeIds = new Map();
  for (const { id, type, data } of workflow.nodes) {
    if (type !== "WebhookTrigger" || !data?.webhookId) continue;
    nodeIds.set(data.webhookId, [...(nodeIds.get(data.webhookId) ?? []), id]);
  }
  return nodeIds;
}

export const accepted = (webhookId, matchedCount) => ({
  success: true,
  message: "Webhook accepted",
  data: { webhookId, matchedCount },
});
