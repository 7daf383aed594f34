// What such services are today: Express, a look-up in MongoDB for each request, BullMQ.
import { createSecretKey } from "node:crypto";
import express from "express";
import jwt from "jsonwebtoken";
import { MongoClient } from "mongodb7";
import { accepted, enqueue, listeners } from "./jobs.mjs";
import { onEveryCore } from "./processes.mjs";

const secret = createSecretKey(process.env.JWT_SECRET, "utf8"); // of a text it would try first whether it is a public key

onEveryCore(async () => {
  const client = await MongoClient.connect(process.env.MONGODB_URI);
  const workflows = client.db(process.env.MONGODB_DATABASE).collection("workflows");
  await workflows.createIndex({ organizationId: 1, "nodes.data.webhookId": 1 });

  function authenticate(request, response, next) {
    try {
      const token = (request.headers.authorization ?? "").replace(/^Bearer /, "");
      request.caller = jwt.verify(token, secret, { algorithms: ["HS256"] });
    } catch {
      return response.status(401).json({ success: false, code: "invalid_token" });
    }
    next();
  }

  async function matching(organizationId, webhookId) {
    const node = { $elemMatch: { type: "WebhookTrigger", "data.webhookId": webhookId } };
    const found = await workflows
      .find({ organizationId, "nodes.data.webhookId": webhookId, nodes: node, enabled: true })
      .project({ nodes: 1 })
      .toArray();
    return found.map((workflow) => ({ workflowId: workflow._id, nodeIds: listeners(workflow).get(webhookId) }));
  }

  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.post("/api/webhook/workflow", authenticate, express.json(), async (request, response) => {
    const { webhookId, ...payload } = request.body;
    if (typeof webhookId !== "string") {
      return response.status(400).json({ success: false, code: "missing_webhook_id" });
    }
    const found = await matching(request.caller.organizationId, webhookId);
    await enqueue(found, request.caller, webhookId, payload);
    response.status(202).json(accepted(webhookId, found.length));
  });
  app.listen(Number(process.env.PORT), "127.0.0.1", 4096);
});
