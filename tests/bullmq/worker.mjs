// A BullMQ worker that reports its events, one JSON object per line on stdout:
//
//   {"event":"ready"}
//   {"event":"completed","id":"1","name":"workflow","data":{…},"opts":{…},"attemptsMade":1,…}
//   {"event":"failed",…,"failedReason":"…"}       once per failed attempt
//   {"event":"span","traceId":"…",…}              with --telemetry, the spans of bullmq-otel
//   {"event":"error","message":"…"}               for example, while Redis is away
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
    // Each job fails this many times and then succeeds, to show retries and backoff.
    "fail-first": { type: "string", default: "0" },
    // The parent process holds stdin open, so that the worker cannot outlive it, however it ends.
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
    // The delay of a custom backoff strategy, in milliseconds.
    settings: { backoffStrategy: () => 20 },
    ...(telemetry && { telemetry }),
  },
);

let closing = false;
async function close() {
  if (closing) return;
  closing = true;
  // Without Redis the last commands would wait for ever. Nothing is lost if they are not executed.
  setTimeout(() => process.exit(0), 5000).unref();
  await worker.close();
  await redis.quit();
  report("closed");
  process.exit(0);
}

// Both connections emit the same error, and Node exits if one of them has no listener.
redis.on("error", () => {});
worker.on("error", (error) => report("error", { message: error.message }));
worker.on("completed", (job) => report("completed", describe(job)));
worker.on("failed", (job, error) => report("failed", { ...describe(job), failedReason: error.message }));
process.on("SIGTERM", close);
process.on("SIGINT", close);
process.stdout.on("error", () => process.exit(1)); // the reader has gone
if (flags["until-stdin-closes"]) {
  process.stdin.on("end", close).on("error", close).resume();
}

await worker.waitUntilReady();
report("ready");
