// Adds jobs as fast as the official library does, and reports the CPU time of this process. For the
// benchmark.
//
// node produce.mjs [--redis URL] [--queue NAME] [--prefix PREFIX] --default-job-options JSON --data FILE
//
// FILE holds the data of the jobs, one per line. The program first prints {"node":…,"bullmq":…}.
// Then it reads one command per line from stdin and answers each with {"cpuMicroseconds":…}:
//
//   {"add":{"callers":64},"jobs":1000}     64 callers; each waits for its job before it adds the next
//   {"addBulk":{"size":256},"jobs":1000}   one bulk after the other
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Queue } from "bullmq";
import { connect, queueFlags } from "./which-queue.mjs";

const NAME = "workflow";

const ways = {
  async add(queue, jobs, { callers }) {
    let next = 0;
    const caller = async () => {
      while (next < jobs.length) await queue.add(NAME, jobs[next++]);
    };
    await Promise.all(Array.from({ length: callers }, caller));
  },
  async addBulk(queue, jobs, { size }) {
    for (let first = 0; first < jobs.length; first += size) {
      await queue.addBulk(jobs.slice(first, first + size).map((data) => ({ name: NAME, data })));
    }
  },
};

const { values: flags } = parseArgs({
  options: { ...queueFlags, "default-job-options": { type: "string" }, data: { type: "string" } },
});
const lines = readFileSync(flags.data, "utf8").trimEnd().split("\n");
const jobs = lines.map((line) => JSON.parse(line));
const redis = connect(flags, 3);
const queue = new Queue(flags.queue, {
  connection: redis,
  prefix: flags.prefix,
  defaultJobOptions: JSON.parse(flags["default-job-options"]),
});
await queue.waitUntilReady();
console.log(JSON.stringify({ node: process.version, bullmq: await queue.getVersion() }));

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const way = Object.keys(ways).find((name) => name in order);
  const before = process.cpuUsage();
  await ways[way](queue, jobs.slice(0, order.jobs), order[way]);
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ cpuMicroseconds: user + system }));
}
await queue.close();
redis.disconnect();
