// Before a run: a look at Hookgate's metrics. After it: what came out, on one page, and what to look at.
//
// SUMMARY_JSON   a file for all figures of k6 as well
import { CODES, answers } from "./webhooks.mjs";
import { p99Limit } from "./pace.mjs";
import { reading } from "./reading.mjs";
import { between, scrape } from "./server.mjs";

/** `options` of a scenario. */
export function options(scenarios, thresholds) {
  // Without a bound they only make k6 keep the figures of these parts, which the summary shows.
  const parts = [...CODES.map((code) => `answers{code:${code}}`), "http_req_duration{kind:webhook}"];
  return {
    scenarios,
    thresholds: { ...Object.fromEntries(parts.map((part) => [part, []])), ...thresholds },
    summaryTrendStats: ["med", "p(95)", "p(99)", "p(99.9)", "max"],
  };
}

/** `setup` of every scenario. */
export function before() {
  // Rather than a warning for each of thousands of webhooks.
  if (!answers()) throw new Error("nothing answers at BASE_URL");
  return { metrics: scrape(), startedAt: Date.now() };
}

/** `handleSummary` of a scenario in which only these codes are to be expected. */
export function summaryOf(name, expected = ["accepted"]) {
  return (data) => {
    if (!data.setup_data) return {}; // setup has failed, and k6 says why
    const figures = figuresOf(data, expected);
    const files = __ENV.SUMMARY_JSON ? { [__ENV.SUMMARY_JSON]: JSON.stringify(data, null, 2) } : {};
    return { stdout: page(name, figures), ...files };
  };
}

function figuresOf(data, expected) {
  const { metrics, setup_data: start } = data;
  const count = (name) => metrics[name]?.values.count ?? 0;
  const seconds = (Date.now() - start.startedAt) / 1000;
  const times = metrics["http_req_duration{kind:webhook}"].values;
  const checks = data.root_group.checks ?? [];
  return {
    seconds,
    times,
    checks,
    expected,
    p99: times["p(99)"],
    limit: p99Limit,
    dropped: count("dropped_iterations"),
    answers: Object.fromEntries(CODES.map((code) => [code, count(`answers{code:${code}}`)])),
    failedChecks: checks.reduce((sum, check) => sum + check.fails, 0),
    thresholds: thresholdsOf(metrics),
    server: between(start.metrics, scrape(), seconds),
  };
}

function thresholdsOf(metrics) {
  return Object.entries(metrics).flatMap(([name, { thresholds = {} }]) =>
    Object.entries(thresholds).map(([bound, { ok }]) => ({ text: `${name} ${bound}`, ok })),
  );
}

function page(name, figures) {
  const { answers, seconds, times, server, checks, thresholds } = figures;
  const total = Object.values(answers).reduce((sum, count) => sum + count, 0);
  const counted = Object.entries(answers).filter(([, count]) => count > 0);
  const milliseconds = ([label, key]) => `${label} ${times[key].toFixed(2)} ms`;
  const percentiles = [["p50", "med"], ["p95", "p(95)"], ["p99", "p(99)"], ["p99.9", "p(99.9)"], ["max", "max"]];
  const lines = [
    "",
    `${name}: ${total} webhooks in ${seconds.toFixed(1)} s, ${(total / seconds).toFixed(1)} a second`,
    `  answers     ${counted.map(([code, count]) => `${code} ${count}`).join(", ")}`,
    `  time        ${percentiles.map(milliseconds).join(", ")}`,
    server && `  Hookgate    ${serverLine(server)}`,
    ...checks.map(({ name, passes, fails }) => `  check       ${fails ? "FAILED" : "passed"}: ${name} (${passes} of ${passes + fails})`),
    ...thresholds.map(({ text, ok }) => `  threshold   ${ok ? "kept" : "MISSED"}: ${text}`),
    "",
    "What to look at:",
    ...reading(figures).map((sentence) => `  - ${sentence}`),
    "",
  ];
  return `${lines.filter((line) => line !== null).join("\n")}\n`;
}

function serverLine({ cores, p99, redisP99, memoryBefore, memoryAfter, redisErrors }) {
  const mebibytes = (bytes) => `${(bytes / 1048576).toFixed(0)} MiB`;
  const errors = Object.entries(redisErrors).map(([kind, count]) => `, Redis errors: ${kind} ${count}`);
  return (
    `${cores.toFixed(1)} cores, memory ${mebibytes(memoryBefore)} to ${mebibytes(memoryAfter)}, ` +
    `p99 at most ${p99} ms, calls to Redis at most ${redisP99} ms${errors.join("")}`
  );
}
