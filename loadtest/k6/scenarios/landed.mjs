// Phase one of the check that every 202 has landed: RATE (200) webhooks a second for DURATION (20s), each with an id of its
// own in its payload; every other one with an Idempotency-Key, and those are sent again when no answer, or an
// unsure one, came. What was answered goes to the console, one JSON object a line, for loadtest/landed.mjs:
//
//   k6 run --log-format raw --console-output answers.jsonl landed.mjs
//
// ALL_ACCEPTED   if it is set, no webhook may end without its 202: nothing is meant to break meanwhile
import { check, sleep } from "k6";
import exec from "k6/execution";
import { constant, number } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { bodyOf, codeOf, isAccepted, nextTarget, send, webhook } from "../webhooks.mjs";

const ATTEMPTS = 5;
/** Every tenth is sent once more after its 202; a multiple of two, so that it has a key. */
const REPEATED = 10;

export const options = optionsOf(
  { landed: constant(number("RATE", 200), __ENV.DURATION || "20s") },
  __ENV.ALL_ACCEPTED ? { checks: ["rate==1"] } : {},
);
export const handleSummary = summaryOf("landed, phase one");

export function setup() {
  return { ...before(), run: `landed-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}` };
}

export default function ({ run }) {
  const serial = exec.scenario.iterationInTest;
  const target = nextTarget();
  const id = `${run}-${serial}`;
  const keyed = serial % 2 === 0;
  const request = {
    body: webhook(target.webhookId, { landed: id }),
    headers: { "X-Request-Id": id, ...(keyed && { "Idempotency-Key": id }) },
  };
  const response = untilSure(() => note(id, target, send(target, request)), keyed ? ATTEMPTS : 1);
  if (serial % REPEATED === 0 && codeOf(response) === "accepted") note(id, target, send(target, request));
  check(response, { accepted: () => isAccepted(response, target) });
}

function untilSure(attempt, attempts) {
  const response = attempt();
  const isSure = response.status > 0 && response.status < 500;
  if (isSure || attempts === 1) return response;
  sleep(Number(response.headers["Retry-After"] ?? 1));
  return untilSure(attempt, attempts - 1);
}

function note(id, target, response) {
  const { data, details } = bodyOf(response);
  const { enqueued } = details ?? {};
  console.log(JSON.stringify({ id, code: codeOf(response), matched: data?.matchedCount, enqueued, matches: target.matches }));
  return response;
}
