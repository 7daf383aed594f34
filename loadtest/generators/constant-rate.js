// One webhook at a constant rate, whatever the answers take; prints one line of JSON at the end.
//
// k6 run -e URL=… -e RATE=… -e SECONDS=… -e CONNECTIONS=… -e CREDENTIAL=… -e BODY=FILE constant-rate.js
import http from "k6/http";

const { URL, RATE, SECONDS, CONNECTIONS, CREDENTIAL, BODY } = __ENV;
const body = open(BODY);
const params = { headers: { Authorization: `Bearer ${CREDENTIAL}`, "Content-Type": "application/json" } };

http.setResponseCallback(http.expectedStatuses(202));

export const options = {
  scenarios: {
    webhooks: {
      executor: "constant-arrival-rate",
      rate: Number(RATE),
      duration: `${SECONDS}s`,
      preAllocatedVUs: Number(CONNECTIONS),
      maxVUs: Number(CONNECTIONS),
    },
  },
  discardResponseBodies: true,
  summaryTrendStats: ["p(50)", "p(99)", "p(99.9)"],
};

export default function () {
  http.post(URL, body, params);
}

export function handleSummary({ metrics }) {
  const failed = metrics.http_req_failed.values;
  const duration = metrics.http_req_duration.values;
  const summary = {
    accepted: failed.fails, // "failed" was false
    refused: failed.passes,
    dropped: metrics.dropped_iterations?.values.count ?? 0,
    p50: duration["p(50)"],
    p99: duration["p(99)"],
    p999: duration["p(99.9)"],
  };
  return { stdout: `${JSON.stringify(summary)}\n` };
}
