// What Hookgate says of itself: its metrics before and after a run. ADMIN_URL is the address of the admin port;
// without it, or if it does not answer, nothing is known.
import http from "k6/http";

/** Every sample, by its name and labels as they are spelled; null if there are none. */
export function scrape() {
  if (!__ENV.ADMIN_URL) return null;
  const url = `${__ENV.ADMIN_URL.replace(/\/+$/, "")}/metrics`;
  const response = http.get(url, { tags: { kind: "metrics" }, timeout: "5s", responseCallback: null });
  return response.status === 200 ? parse(response.body) : null;
}

function parse(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}

/** What happened between two scrapes; null where one is missing or Hookgate was restarted in between. */
export function between(before, after, seconds) {
  if (!before || !after) return null;
  if (before.process_start_time_seconds !== after.process_start_time_seconds) return null;
  const grown = (series) => (after[series] ?? 0) - (before[series] ?? 0);
  return {
    cores: grown("process_cpu_seconds_total") / seconds,
    p99: percentile(0.99, "hookgate_request_duration_seconds", after, grown) * 1000,
    redisP99: percentile(0.99, "hookgate_redis_call_duration_seconds", after, grown) * 1000,
    memoryBefore: before.process_resident_memory_bytes,
    memoryAfter: after.process_resident_memory_bytes,
    redisErrors: byLabel("hookgate_redis_errors_total", "kind", after, grown),
  };
}

/** The upper bound of the bucket that holds it. */
function percentile(share, name, after, grown) {
  const counts = byLabel(`${name}_bucket`, "le", after, grown);
  const numbered = Object.entries(counts).map(([le, count]) => [Number(le.replace("+Inf", "Infinity")), count]);
  const wanted = share * (counts["+Inf"] ?? 0);
  const holding = numbered.sort(([a], [b]) => a - b).find(([, count]) => count >= wanted);
  return holding ? holding[0] : 0;
}

/** What has grown, by the values of one label. Series that differ in others, such as the queue, are added up. */
function byLabel(name, label, after, grown) {
  const sums = {};
  for (const series of Object.keys(after).filter((each) => each.startsWith(`${name}{`) && grown(each) > 0)) {
    const value = series.match(new RegExp(`[{,]${label}="([^"]*)"`))?.[1];
    sums[value] = (sums[value] ?? 0) + grown(series);
  }
  return sums;
}
