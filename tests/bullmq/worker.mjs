// A BullMQ worker that reports what it sees, one JSON object a line on stdout:
//
//   {"event":"ready"}
//   {"event":"completed","id":"1","name":"workflow","data":{…},"opts":{…},"attemptsMade":1,…}
//   {"event":"failed",…,"failedReason":"…"}       once per failed attempt
//   {"event":"span","traceId":"…",…}              with --telemetry, what bullmq-otel records
//   {"event":"error","message":"…"}               Redis is away, for example
//   {"event":"closed"}                            after SIGTERM or SIGINT, or the end of stdin
//
// node worker.mjs [--redis URL] [--queue NAME] [--prefix PREFIX] [--concurrency N]
//                 [--fail-first N] [--until-stdin-closes] [--bullmq PACKAGE] [--telemetry]
import { parseArgs } from "node:util";
import { connect, queueFlags } from "./which-queue.mjs";

const { values: flags } = parseArgs({
  options: {
    ...queueFlags,
    concurrency: { type: "string", default: process.env.CONCURRENCY ?? "1" },
    // Each job fails this many times and then passes, to show retries and backoff.
    "fail-first": { type: "string", default: "0" },
    // Whoever started the worker holds its stdin open, so that it cannot outlive them, however they end.
    "until-stdin-closes": { type: "boolean", default: false },
    telemetry: { type: "boolean", default: false },
  },
});
const concurrency = wholeNumber("concurrency");
const failFirst = wholeNumber("fail-first");

function wholeNumber(flag) {
  const number = Number(flags[flag]);
  if (!Number.isInteger(number) || number < 0) {
    throw new Error(`--${flag} is "${flags[flag]}", but should be a whole number`);
  }
  return number;
}

function report(event, details = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...details })}\n`);
}

function describe(job) {
  const { id, name, data, opts, attemptsMade, timestamp, processedOn, finishedOn } = job;
  return { id, name, data, opts, attemptsMade, timestamp, processedOn, finishedOn };
}

const { Worker } = await import(flags.bullmq);
const telemetry = flags.telemetry && (await import("./telemetry.mjs")).telemetry((span) => report("span", span));
const redis = connect(flags);
const worker = new Worker(
  flags.queue,
  async (job) => {
    if (job.attemptsMade < failFirst) {
      throw new Error(`attempt ${job.attemptsMade + 1} fails as asked`);
    }
  },
  {
    connection: redis,
    prefix: flags.prefix,
    concurrency,
    // What a backoff of another type than BullMQ's own two comes to.
    settings: { backoffStrategy: () => 20 },
    ...(telemetry && { telemetry }),
  },
);

let closing = false;
async function close() {
  if (closing) return;
  closing = true;
  // With Redis away the last commands would wait for it; what is not done by then is nobody's loss.
  setTimeout(() => process.exit(0), 5000).unref();
  await worker.close();
  await redis.quit();
  report("closed");
  process.exit(0);
}

// Both connections report the same outage, and one of them has to be listened to or Node exits.
redis.on("error", () => {});
worker.on("error", (error) => report("error", { message: error.message }));
worker.on("completed", (job) => report("completed", describe(job)));
worker.on("failed", (job, error) => report("failed", { ...describe(job), failedReason: error.message }));
process.on("SIGTERM", close);
process.on("SIGINT", close);
process.stdout.on("error", () => process.exit(1)); // nobody reads any more
if (flags["until-stdin-closes"]) {
  process.stdin.on("end", close).on("error", close).resume();
}

await worker.waitUntilReady();
report("ready");
