// The official client's view of a queue, for tests. Prints one JSON object.
//
// node queue.mjs COMMAND [--redis URL] [--queue NAME] [--prefix PREFIX] [--default-job-options JSON]
//                       [--max-len-events N]
//
//   pause, resume   as a dashboard does it
//   counts          how many jobs are in each state
//   add-bulk        reads {"name":…,"data":…,"opts":…} from stdin, one job a line, and prints their ids
//   obliterate      removes the queue with all its jobs, also running ones
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Queue } from "bullmq";
import { connect, queueFlags } from "./which-queue.mjs";

const commands = {
  async pause(queue) {
    await queue.pause();
    return { paused: await queue.isPaused() };
  },
  async resume(queue) {
    await queue.resume();
    return { paused: await queue.isPaused() };
  },
  counts: (queue) => queue.getJobCounts(),
  async "add-bulk"(queue) {
    const jobs = [];
    for await (const line of createInterface({ input: process.stdin })) {
      if (line.trim()) jobs.push(JSON.parse(line));
    }
    const added = await queue.addBulk(jobs);
    return { ids: added.map((job) => job.id) };
  },
  async obliterate(queue) {
    await queue.obliterate({ force: true });
    return { obliterated: queue.name };
  },
};

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...queueFlags,
    "default-job-options": { type: "string", default: "{}" },
    // Every queue writes it to Redis when it is opened.
    "max-len-events": { type: "string", default: "10000" },
  },
});
const command = commands[positionals[0]];
if (!command || positionals.length !== 1) {
  console.error(`usage: queue.mjs ${Object.keys(commands).join("|")} [--redis URL] [--queue NAME] [--prefix PREFIX]`);
  process.exit(2);
}

const redis = connect(flags, 3);
redis.on("error", () => {}); // what fails is told by the call that fails
await redis.ping(); // while BullMQ itself would wait for Redis for ever
const queue = new Queue(flags.queue, {
  connection: redis,
  prefix: flags.prefix,
  defaultJobOptions: JSON.parse(flags["default-job-options"]),
  streams: { events: { maxLen: Number(flags["max-len-events"]) } },
});
try {
  console.log(JSON.stringify(await command(queue)));
} finally {
  await queue.close();
  redis.disconnect();
}
