// Seconds: does it work at all? Every target is asked once for each of the answers that matter.
import { check } from "k6";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { bodyOf, codeOf, isAccepted, send, targets } from "../webhooks.mjs";

export const options = optionsOf(
  { smoke: { executor: "per-vu-iterations", vus: 1, iterations: 1, maxDuration: "30s" } },
  { checks: ["rate==1"] },
);
export const setup = before;
export const handleSummary = summaryOf("smoke", ["accepted", "missing_credentials", "invalid_json"]);

export default function () {
  for (const target of targets) {
    const key = { "Idempotency-Key": `smoke-${Date.now()}-${Math.random()}` };
    const body = JSON.stringify({ webhookId: target.webhookId, from: "smoke" });
    check(send(target), { "a webhook is accepted": (response) => isAccepted(response, target) });
    check(send(target, { headers: key, body }), {
      "one with an Idempotency-Key is accepted": (response) => isAccepted(response, target),
    });
    check(send(target, { headers: key, body }), {
      "its repetition gets the same answer": (response) =>
        isAccepted(response, target) && response.headers["Idempotency-Replayed"] === "true",
    });
    check(send({ ...target, token: "" }, { status: 401 }), {
      "without a credential it is 401": (response) => codeOf(response) === "missing_credentials",
    });
    check(send(target, { body: "{", status: 400 }), {
      "half a body is 400": (response) => codeOf(response) === "invalid_json" && bodyOf(response).retryable === false,
    });
  }
}
