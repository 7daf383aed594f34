// A tuned Node service: Fastify, tokens remembered, workflows in memory, answers written by a schema.
import { readFileSync } from "node:fs";
import { createVerifier } from "fast-jwt";
import Fastify from "fastify";
import { accepted, enqueue, listeners } from "./jobs.mjs";
import { onEveryCore } from "./processes.mjs";

const verify = createVerifier({ key: process.env.JWT_SECRET, algorithms: ["HS256"], cache: 10_000 });

// By organization and webhook.
function readWorkflows(path) {
  const organizations = new Map();
  for (const workflow of JSON.parse(readFileSync(path, "utf8")).workflows) {
    if (!workflow.enabled) continue;
    if (!organizations.has(workflow.organizationId)) organizations.set(workflow.organizationId, new Map());
    const webhooks = organizations.get(workflow.organizationId);
    for (const [webhookId, nodeIds] of listeners(workflow)) {
      if (!webhooks.has(webhookId)) webhooks.set(webhookId, []);
      webhooks.get(webhookId).push({ workflowId: workflow._id, nodeIds });
    }
  }
  return organizations;
}

const answer = {
  type: "object",
  properties: {
    success: { type: "boolean" },
    message: { type: "string" },
    data: { type: "object", properties: { webhookId: { type: "string" }, matchedCount: { type: "integer" } } },
  },
};

onEveryCore(async () => {
  const organizations = readWorkflows(process.env.WORKFLOWS);
  const app = Fastify({ logger: false });
  app.post("/api/webhook/workflow", { schema: { response: { 202: answer } } }, async (request, reply) => {
    let caller;
    try {
      caller = verify((request.headers.authorization ?? "").replace(/^Bearer /, ""));
    } catch {
      return reply.code(401).send({ success: false, code: "invalid_token" });
    }
    const { webhookId, ...payload } = request.body;
    if (typeof webhookId !== "string") return reply.code(400).send({ success: false, code: "missing_webhook_id" });
    const workflows = organizations.get(caller.organizationId)?.get(webhookId) ?? [];
    await enqueue(workflows, caller, webhookId, payload);
    return reply.code(202).send(accepted(webhookId, workflows.length));
  });
  await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 });
});
