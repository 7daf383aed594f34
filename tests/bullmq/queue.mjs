// The official client's view of a queue, for tests. Prints one JSON object.
//
// node queue.mjs COMMAND [--redis URL] [--queue NAME] [--prefix PREFIX] [--bullmq PACKAGE]
//
//   pause, resume   as a dashboard does
//   counts          number of jobs in each state
//   obliterate      removes the queue with all its jobs, including active ones
import { parseArgs } from "node:util";
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
  async obliterate(queue) {
    await queue.obliterate({ force: true });
    return { obliterated: queue.name };
  },
};

const { values: flags, positionals } = parseArgs({ allowPositionals: true, options: queueFlags });
const command = commands[positionals[0]];
if (!command || positionals.length !== 1) {
  console.error(`usage: queue.mjs ${Object.keys(commands).join("|")} [--redis URL] [--queue NAME] [--prefix PREFIX]`);
  process.exit(2);
}

const { Queue } = await import(flags.bullmq);
const redis = connect(flags, 3);
redis.on("error", () => {}); // a failed call reports its error
await redis.ping(); // fails without Redis, while BullMQ would wait for ever
const queue = new Queue(flags.queue, { connection: redis, prefix: flags.prefix });
try {
  console.log(JSON.stringify(await command(queue)));
} finally {
  await queue.close();
  redis.disconnect();
}
