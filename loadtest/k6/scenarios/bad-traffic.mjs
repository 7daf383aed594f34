// Requests that are wrong in every way, RATE (100) of them a second for DURATION (30s), beside half as many good ones. Each
// wrong one must get its own status, and the good ones must not notice.
import { check } from "k6";
import encoding from "k6/encoding";
import exec from "k6/execution";
import { constant, goodEnoughIn, number, quickIn } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { bodyOf, codeOf, isAccepted, nextTarget, send, webhook } from "../webhooks.mjs";

const rate = number("RATE", 100);
const goodRate = Math.ceil(rate / 2);
const duration = __ENV.DURATION || "30s";
/** server.max_body of the Hookgate that is asked, in bytes. */
const maxBody = number("MAX_BODY", 1024 * 1024);

const part = (value) => encoding.b64encode(JSON.stringify(value), "rawurl");
const UNSIGNED = [part({ alg: "none", typ: "JWT" }), part({ sub: "u", exp: 4102444800 }), "c2ln"].join(".");
const TOO_LARGE = webhook("too-large", { text: "x".repeat(maxBody) });

/** What is wrong, how it is sent, and what it must be told. */
const WRONGS = [
  { wrong: "no credential", token: "", status: 401, code: "missing_credentials" },
  { wrong: "an unknown API key", token: "no-such-key", status: 401, code: "invalid_api_key" },
  { wrong: "a token that nobody signed", token: UNSIGNED, status: 401, code: "invalid_token" },
  { wrong: "half a body", body: '{"webhookId":"wh', status: 400, code: "invalid_json" },
  { wrong: "two bodies", body: '{"webhookId":"a"}{}', status: 400, code: "invalid_json" },
  { wrong: "bytes that are not UTF-8", body: new Uint8Array([0x7b, 0xff, 0xfe, 0x7d]).buffer, status: 400, code: "invalid_json" },
  { wrong: "nesting without end", body: `{"a":${"[".repeat(5000)}`, status: 400, code: "invalid_json" },
  { wrong: "a list", body: "[1,2,3]", status: 400, code: "body_not_object" },
  { wrong: "no webhook", body: '{"event":"a"}', status: 400, code: "missing_webhook_id" },
  { wrong: "a webhook twice", body: '{"webhookId":"a","webhookId":"b"}', status: 400, code: "missing_webhook_id" },
  { wrong: "a number for a webhook", body: '{"webhookId":7}', status: 400, code: "missing_webhook_id" },
  { wrong: "a form", headers: { "Content-Type": "application/x-www-form-urlencoded" }, status: 415, code: "unsupported_media_type" },
  { wrong: "an unknown encoding", headers: { "Content-Encoding": "rot13" }, status: 415, code: "unsupported_media_type" },
  { wrong: "a key too long", headers: { "Idempotency-Key": "k".repeat(300) }, status: 400, code: "invalid_idempotency_key" },
  { wrong: "a body too large", body: TOO_LARGE, status: 413, code: "payload_too_large" },
  { wrong: "another path", path: "/api/webhook/workflows", status: 404, code: "not_found" },
  { wrong: "another method", method: "PUT", status: 405, code: "method_not_allowed" },
];
const EXPECTED = ["accepted", ...WRONGS.map(({ code }) => code)];

export const options = optionsOf(
  {
    bad: constant(rate, duration, { exec: "bad" }),
    good: constant(goodRate, duration, { exec: "good" }),
  },
  {
    ...quickIn("good"),
    ...goodEnoughIn("good", goodRate),
    ...goodEnoughIn("bad", rate),
  },
);
export const setup = before;
export const handleSummary = summaryOf("bad-traffic", EXPECTED);

export function bad() {
  // One more than there are wrongs: the last is a webhook that nobody listens to, which is no fault of the request.
  const turn = exec.scenario.iterationInTest % (WRONGS.length + 1);
  if (turn === WRONGS.length) return unknownWebhook();
  const { wrong, status, code, token, ...how } = WRONGS[turn];
  const target = nextTarget();
  const response = send({ ...target, token: token ?? target.token }, { ...how, status });
  check(response, {
    [`${wrong}: ${status} ${code}`]: () =>
      response.status === status && codeOf(response) === code && bodyOf(response).retryable === false,
  });
}

function unknownWebhook() {
  const target = { ...nextTarget(), webhookId: "nobody-listens-to-this", matches: 0 };
  check(send(target), { "an unknown webhook: 202 with 0 matches": (response) => isAccepted(response, target) });
}

export function good() {
  const target = nextTarget();
  check(send(target), { "good ones are accepted": (response) => isAccepted(response, target) });
}
