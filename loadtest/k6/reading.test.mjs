// Run by `node --test`: each cause of a failed run is recognized.
import assert from "node:assert/strict";
import { test } from "node:test";
import { reading } from "./reading.mjs";

const SERVER = { cores: 0.2, p99: 2.5, redisP99: 1, memoryBefore: 3e7, memoryAfter: 4e7, redisErrors: {} };
const GOOD = { p99: 3, limit: 250, answers: { accepted: 100 }, dropped: 0, failedChecks: 0, expected: ["accepted"], server: SERVER };

function only(figures) {
  const sentences = reading({ ...GOOD, ...figures });
  assert.equal(sentences.length, 1, sentences.join("\n"));
  return sentences[0];
}

test("a good run has nothing to look at", () => {
  assert.equal(only({}), "Nothing stands out.");
  assert.equal(only({ server: null }), "Nothing stands out.");
});

test("each refusal has its meaning", () => {
  const refused = (code) => only({ answers: { accepted: 90, [code]: 10 }, failedChecks: 10 });
  assert.match(refused("queue_unavailable"), /^10 x queue_unavailable: Redis did not acknowledge/);
  assert.match(refused("queue_unavailable"), /Over queue\.memory_watermark/);
  assert.match(refused("overloaded"), /A bound of Hookgate/);
  assert.doesNotMatch(refused("overloaded"), /memory_watermark/);
  assert.match(refused("expired_token"), /does not take the credential/);
  assert.match(refused("no_answer"), /address/);
  assert.match(refused("invalid_json"), /at fault/);
});

test("what a scenario expects is no refusal", () => {
  assert.equal(only({ answers: { invalid_json: 10 }, expected: ["invalid_json"] }), "Nothing stands out.");
});

test("accepted webhooks that start nothing are noticed", () => {
  assert.match(only({ failedChecks: 100 }), /matchedCount/);
});

test("webhooks that were not begun are the generator's fault only if answers are quick", () => {
  assert.match(only({ dropped: 7 }), /generator is the bottleneck/);
  const [dropped] = reading({ ...GOOD, dropped: 7, p99: 900 });
  assert.match(dropped, /slower than RATE/);
});

test("a high p99 is looked for where the time is lost", () => {
  const slow = (server) => only({ p99: 900, server: server && { ...SERVER, ...server } });
  assert.match(slow(null), /--admin-url/);
  assert.match(slow({ p99: 5 }), /lost before it/);
  assert.match(slow({ p99: 1000, redisP99: 500 }), /Redis is what is waited for/);
  assert.match(slow({ p99: 1000, redisP99: 2.5 }), /wait for their turn/);
  assert.match(slow({ p99: 1000, redisP99: 2.5, cores: 1.9 }), /lacks CPU/);
  assert.match(slow({ p99: 1000, redisErrors: { connection: 7 } }), /failed meanwhile \(connection 7\)/);
});

test("growing memory is noticed", () => {
  assert.match(only({ server: { ...SERVER, memoryAfter: 4e8 } }), /memory has grown/);
});
