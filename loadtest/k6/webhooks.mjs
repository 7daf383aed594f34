// Webhooks: to whom they go, how one is sent, and under what name its answer is counted.
//
// BASE_URL   where Hookgate listens, by default http://127.0.0.1:2212
// TOKEN      a token or an API key, with WEBHOOK_ID; or
// TARGETS    a JSON file, absolute or beside the scenario: [{"token": "…", "webhookId": "…"}, …], where "matches"
//            is the number of workflows that the webhook starts, and "organization" is its owner
// BYTES      of a body, by default 150
import exec from "k6/execution";
import http from "k6/http";
import { SharedArray } from "k6/data";
import { Counter } from "k6/metrics";
import { number } from "./pace.mjs";

const baseUrl = (__ENV.BASE_URL || "http://127.0.0.1:2212").replace(/\/+$/, "");

const url = `${baseUrl}/api/webhook/workflow`;

export const targets = new SharedArray("targets", () => {
  if (__ENV.TARGETS) return JSON.parse(open(__ENV.TARGETS));
  if (__ENV.TOKEN && __ENV.WEBHOOK_ID) return [{ token: __ENV.TOKEN, webhookId: __ENV.WEBHOOK_ID }];
  throw new Error("set TOKEN and WEBHOOK_ID, or TARGETS (a JSON file of tokens and webhook ids)");
});

/** What an answer can be: `accepted`, the code of a refusal, or `no_answer`. */
export const CODES = [
  "accepted",
  "invalid_json",
  "body_not_object",
  "missing_webhook_id",
  "invalid_idempotency_key",
  "missing_credentials",
  "invalid_token",
  "expired_token",
  "invalid_api_key",
  "not_found",
  "method_not_allowed",
  "request_timeout",
  "payload_too_large",
  "fanout_too_large",
  "unsupported_media_type",
  "idempotency_key_reused",
  "rate_limited",
  "internal",
  "overloaded",
  "index_unavailable",
  "keys_unavailable",
  "queue_unavailable",
  "no_answer",
  "not_hookgate",
];

const answersByCode = new Counter("answers");

/** The body of an answer; empty where it is not JSON, as an answer of a proxy may be. */
export function bodyOf(response) {
  try {
    return response.json() ?? {};
  } catch {
    return {};
  }
}

export function codeOf(response) {
  if (response.status === 0) return "no_answer";
  const body = bodyOf(response);
  if (response.status === 202 && body.success) return "accepted";
  return CODES.includes(body.code) ? body.code : "not_hookgate";
}

/** A body of BYTES, or a little more. */
export function webhook(webhookId, members = {}) {
  const body = { webhookId, sentAt: Date.now(), ...members, filler: "" };
  const missing = number("BYTES", 150) - JSON.stringify(body).length;
  return JSON.stringify({ ...body, filler: "x".repeat(Math.max(0, missing)) });
}

/** Sends a webhook. Any other status than the expected one counts as failed. */
export function send(target, { body, headers = {}, status = 202 } = {}) {
  const response = http.post(url, body ?? webhook(target.webhookId), {
    headers: {
      "Content-Type": "application/json",
      ...(target.token && { Authorization: `Bearer ${target.token}` }),
      ...headers,
    },
    tags: { kind: "webhook" },
    responseCallback: http.expectedStatuses(status),
  });
  answersByCode.add(1, { code: codeOf(response) });
  return response;
}

/** Whether it is a 202 with as many matches as the target is said to have. */
export function isAccepted(response, target) {
  if (codeOf(response) !== "accepted") return false;
  const { matchedCount } = bodyOf(response).data;
  return target.matches === undefined ? matchedCount > 0 : matchedCount === target.matches;
}

/** The next target in turn. */
export function nextTarget() {
  return targets[exec.scenario.iterationInTest % targets.length];
}

/** Whether anything does at all. */
export function answers() {
  return http.get(baseUrl, { tags: { kind: "look" }, responseCallback: null }).status > 0;
}
