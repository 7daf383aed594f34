// Run by mongosh for compose.yaml, at every start: makes the fresh MongoDB a replica set of one, which change streams need, and
// puts in a workflow and a user to try.

try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb:27017" }] });
}
while (!db.hello().isWritablePrimary) sleep(100);

const tether = db.getSiblingDB("tether");
const workflow = {
  organizationId: "acme",
  nodes: [{ id: "n1", type: "WebhookTrigger", data: { webhookId: "order_created" } }],
};
tether.workflows.updateOne({ _id: "welcome-mail" }, { $setOnInsert: workflow }, { upsert: true });
const user = { organizationId: "acme", apiKey: "acme-demo-key" };
tether.users.updateOne({ _id: "ada" }, { $setOnInsert: user }, { upsert: true });
