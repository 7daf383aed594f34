// Calls methods of the official Queue for tests that make many calls on many queues: one process for all of them.
//
// node calls.mjs
//
//   stdin   {"redis":URL,"queue":NAME,"bullmq":PACKAGE,"options":{…},"call":METHOD,"with":[…]}, one a line
//   stdout  {"ids":[…]} where the method gives jobs, and else {}
//
// Unless "options" say otherwise, the queue is not announced in Redis (skipMetasUpdate): what is left there
// is what the method leaves.
import { createInterface } from "node:readline";
import { connect } from "./which-queue.mjs";

const connections = new Map();
function connection(redis) {
  if (!connections.has(redis)) {
    connections.set(redis, connect({ redis }, 3).on("error", () => {})); // what fails is told by the call that fails
  }
  return connections.get(redis);
}

for await (const line of createInterface({ input: process.stdin })) {
  const { redis, queue: name, bullmq, options, call, with: parameters } = JSON.parse(line);
  const { Queue } = await import(bullmq);
  const queue = new Queue(name, { connection: connection(redis), skipMetasUpdate: true, ...options });
  const result = await queue[call](...parameters);
  await queue.close();
  console.log(JSON.stringify(Array.isArray(result) ? { ids: result.map((job) => job.id) } : {}));
}
for (const redis of connections.values()) redis.disconnect();
