// Run by mongosh at every start of compose.yaml. Turns a new MongoDB into a replica set of one
// member, because change streams need a replica set, and inserts a workflow and a user for a first
// try.

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
