// The queue of a command. Flags take precedence over the environment, and the defaults are
// Hookgate's.
import { Redis } from "ioredis";

export const queueFlags = {
  redis: { type: "string", default: process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0" },
  queue: { type: "string", default: process.env.QUEUE ?? "workflow-runner" },
  prefix: { type: "string", default: process.env.PREFIX ?? "bull" },
  // The package to use, by its name in package.json: bullmq, or an older release of it.
  bullmq: { type: "string", default: "bullmq" },
};

// BullMQ requires unlimited retries for a worker's blocking connection. A command that should fail
// without Redis passes a number.
export function connect(flags, maxRetriesPerRequest = null) {
  return new Redis(flags.redis, { maxRetriesPerRequest });
}
