// Calls methods of the official Queue for tests that make many calls on many queues, in one
// process.
//
// node calls.mjs
//
//   stdin   one call per line:
//           {"redis":URL,"queue":NAME,"bullmq":PACKAGE,"options":{…},"call":METHOD,"with":[…]}
//   stdout  {"ids":[…]} if the method returns jobs, else {}
//
// Unless "options" say otherwise, opening the queue writes nothing to Redis (skipMetasUpdate), so
// that Redis holds only what the method writes.
import { createInterface } from "node:readline";
import { connect } from "./which-queue.mjs";

const connections = new Map();
function connection(redis) {
  if (!connections.has(redis)) {
    connections.set(redis, connect({ redis }, 3).on("error", () => {})); // a failed call reports its error
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
