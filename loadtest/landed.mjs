// Phase two of the check that every 202 has landed: holds the answers that the scenario "landed" has noted against the
// jobs in Redis, or against those that workers have done.
//
// node landed.mjs ANSWERS [--redis URL] [--queue NAME] [--prefix PREFIX]
// node landed.mjs ANSWERS --consumed FILE
//
//   ANSWERS   what the scenario wrote, one JSON object a line
//   FILE      what workers have done: a JSON object a line with a job's "id" and "data", as tests/bullmq/worker.mjs
//             prints them; other lines are passed over
//
// All jobs must still be there: in Redis none may have been removed yet (removeOnComplete).
// Exit code 0: every 202 has all its jobs, none twice, and what was surely refused has none. 1: not so, or no 202 has promised a
// job. 2: wrong usage.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { connect, queueFlags } from "../tests/bullmq/which-queue.mjs";

const SHOWN = 10;

async function* objects(file, isWanted) {
  for await (const line of createInterface({ input: createReadStream(file) })) {
    if (!line.startsWith("{")) continue;
    const object = JSON.parse(line);
    if (isWanted(object)) yield object;
  }
}

/** By id of the webhook. The surest answer counts: what was accepted once is accepted, however often it was sent. */
async function readAnswers(file) {
  const answers = new Map();
  for await (const { id, ...answer } of objects(file, ({ id }) => id)) {
    const known = answers.get(id);
    if (!known || sureness(answer) > sureness(known)) answers.set(id, answer);
  }
  return answers;
}

/** Codes of the scenario for what Hookgate has not said: it may have accepted all the same. */
const UNHEARD = ["no_answer", "not_hookgate"];

function sureness({ code, enqueued }) {
  if (code === "accepted") return 2;
  return enqueued === "unknown" || UNHEARD.includes(code) ? 1 : 0;
}

const jobsDue = (answer) => (sureness(answer) === 2 ? answer.matched : 0);

async function* jobsInRedis(flags) {
  const redis = connect(flags, 3);
  redis.on("error", () => {}); // the call that fails reports it
  const start = `${flags.prefix}:${flags.queue}:`;
  const literal = start.replace(/[\\*?[\]]/g, "\\$&");
  try {
    for await (const keys of redis.scanStream({ match: `${literal}*`, count: 1000 })) {
      const ids = keys.map((key) => key.slice(start.length)).filter((id) => /^\d+$/.test(id));
      const pipeline = redis.pipeline();
      for (const id of ids) pipeline.hget(start + id, "data");
      const replies = ids.length > 0 ? await pipeline.exec() : [];
      for (const [index, [error, data]] of replies.entries()) {
        if (error) throw error;
        if (data) yield { id: ids[index], data: JSON.parse(data) };
      }
    }
  } finally {
    redis.disconnect();
  }
}

/** By id of the webhook, then by workflow: the ids of its jobs. */
async function collect(jobs, answers) {
  const run = [...answers.keys()][0].replace(/\d+$/, "");
  const found = new Map();
  for await (const { id, data } of jobs) {
    const webhook = data?.trigger?.payload?.landed;
    if (typeof webhook !== "string" || !webhook.startsWith(run)) continue;
    const workflows = found.get(webhook) ?? new Map();
    found.set(webhook, workflows);
    workflows.set(data.workflowId, (workflows.get(data.workflowId) ?? new Set()).add(id));
  }
  return found;
}

/** What is wrong with the jobs of one webhook; nothing if all is well. */
function faultOf(answer, workflows) {
  for (const [workflow, ids] of workflows) {
    if (ids.size > 1) return ["twice", `workflow ${workflow} has jobs ${[...ids].join(", ")}`];
  }
  const count = workflows.size;
  const { code, matched, matches } = answer;
  switch (sureness(answer)) {
    case 2:
      if (count < matched) return ["missing", `202 with matchedCount ${matched}, but ${count} jobs`];
      return count > matched ? ["too many", `202 with matchedCount ${matched}, but ${count} jobs`] : null;
    case 1:
      return count > 0 && matches && count !== matches ? ["in part", `${count} of ${matches} jobs after ${code}`] : null;
    default:
      return count > 0 ? ["refused", `answered ${code}, but there are ${count} jobs`] : null;
  }
}

function judge(answers, found) {
  const faults = new Map(["missing", "twice", "too many", "in part", "refused"].map((kind) => [kind, []]));
  for (const [webhook, answer] of answers) {
    const fault = faultOf(answer, found.get(webhook) ?? new Map());
    if (fault) faults.get(fault[0]).push(`${webhook}: ${fault[1]}`);
  }
  return faults;
}

function report(where, answers, found, faults) {
  const sure = [...answers.values()].map(sureness);
  const of = (level) => sure.filter((each) => each === level).length;
  const due = [...answers.values()].reduce((sum, answer) => sum + jobsDue(answer), 0);
  const jobs = [...found.values()].flatMap((workflows) => [...workflows.values()]).reduce((sum, ids) => sum + ids.size, 0);
  const strangers = [...found.keys()].filter((webhook) => !answers.has(webhook)).length;
  const sum = [...faults.values()].reduce((sum, each) => sum + each.length, 0);
  console.log(`landed: ${answers.size} webhooks: ${of(2)} accepted with ${due} jobs, ${of(1)} unsure, ${of(0)} refused`);
  console.log(`  ${where}: ${jobs} jobs of this run`);
  if (strangers > 0) console.log(`  ${strangers} webhooks have jobs but no noted answer: k6 was cut off before it came`);
  for (const [kind, each] of faults) {
    console.log(`  ${kind}: ${each.length}`);
    for (const line of each.slice(0, SHOWN)) console.log(`    ${line}`);
    if (each.length > SHOWN) console.log(`    and ${each.length - SHOWN} more`);
  }
  console.log(sum === 0 ? "Every 202 has landed, and nothing has twice." : `${sum} webhooks have not landed as answered.`);
  return sum === 0;
}

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: { ...queueFlags, consumed: { type: "string" } },
});
if (positionals.length !== 1) {
  console.error("usage: landed.mjs ANSWERS [--redis URL] [--queue NAME] [--prefix PREFIX] | ANSWERS --consumed FILE");
  process.exit(2);
}
const answers = await readAnswers(positionals[0]);
if (![...answers.values()].some((answer) => jobsDue(answer) > 0)) {
  console.error(`landed: no 202 in ${positionals[0]} has promised a job, so that there is nothing to look for`);
  process.exit(1);
}
const jobs = flags.consumed ? objects(flags.consumed, ({ id, data }) => id && data) : jobsInRedis(flags);
const where = flags.consumed ? `done by workers (${flags.consumed})` : `in Redis (${flags.prefix}:${flags.queue})`;
const found = await collect(jobs, answers);
process.exitCode = report(where, answers, found, judge(answers, found)) ? 0 : 1;
