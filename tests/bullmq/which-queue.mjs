// Which queue a command works on. Flags win over the environment, and the defaults are Hookgate's own.
import { Redis } from "ioredis";

export const queueFlags = {
  redis: { type: "string", default: process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0" },
  queue: { type: "string", default: process.env.QUEUE ?? "workflow-runner" },
  prefix: { type: "string", default: process.env.PREFIX ?? "bull" },
  // The package to use, as package.json names it: bullmq, or an older release of it.
  bullmq: { type: "string", default: "bullmq" },
};

// BullMQ demands an unlimited number of retries for a worker's blocking connection. A command that
// should rather fail than wait for Redis gives a number.
export function connect(flags, maxRetriesPerRequest = null) {
  return new Redis(flags.redis, { maxRetriesPerRequest });
}
