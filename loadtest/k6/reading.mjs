// What the figures of a run say, in words: what to look at, and where.

/** How a code is read when webhooks that should be accepted are answered with it. */
const MEANINGS = {
  queue_unavailable: () =>
    "Redis did not acknowledge in time, or refused. Look at /readyz and at hookgate_redis_errors_total by kind: timeout " +
    "(Redis is overloaded, or its disk is slow at appendfsync), oom (maxmemory is reached), connection, readonly (a failover). " +
    "Over queue.memory_watermark of its maxmemory (hookgate_redis_memory_ratio) all are refused: workers are too slow, or keep what is done.",
  overloaded: () =>
    "A bound of Hookgate was reached: limits.in_flight_requests or limits.in_flight_bytes. If Redis is slow, " +
    "that is the cause; raising the bound only makes the queue longer.",
  rate_limited: () => "The organization is over [limits.organization]. Send with more organizations, or raise its limit.",
  index_unavailable: () => "Workflows or users are not loaded, or stale: look at /readyz, and at MongoDB behind it.",
  keys_unavailable: () => "The key of the tokens is not in the JWK set of auth.jwt.jwks_url: look at /readyz, and at their issuer.",
  fanout_too_large: () => "One webhook starts more than queue.max_matches or queue.max_fanout_bytes allow.",
  request_timeout: () => "Bodies did not arrive within server.body_timeout: a slow network, or a generator out of CPU.",
  no_answer: () =>
    "Connections were refused, reset or too slow to answer: is the address right, is something between k6 and Hookgate, " +
    "is server.max_connections reached (hookgate_connections), is the generator out of ports or files (ulimit -n)?",
  not_hookgate: () => "Something else than Hookgate answered: a proxy on the way, or another service at this address.",
  internal: () => "A fault of Hookgate: its log has an error with the request id.",
};

const CREDENTIALS = ["missing_credentials", "invalid_token", "expired_token", "invalid_api_key"];
const IDLE_CORES = 0.5;

/** Sentences, the gravest first; one that says so if nothing stands out. */
export function reading({ p99, limit, answers, dropped, failedChecks, expected, server }) {
  const found = [
    ...refusals(answers, expected),
    ...unmatched(answers, failedChecks, expected),
    ...generator(dropped, p99, limit),
    ...(p99 > limit ? slowness(p99, limit, server) : []),
    ...memory(server),
  ];
  return found.length > 0 ? found : ["Nothing stands out."];
}

function refusals(answers, expected) {
  const unexpected = Object.entries(answers).filter(([code, count]) => count > 0 && !expected.includes(code));
  return unexpected.map(([code, count]) => {
    if (CREDENTIALS.includes(code)) {
      return `${count} x ${code}: Hookgate does not take the credential. Has TOKEN expired, is it of this installation?`;
    }
    const meaning = MEANINGS[code]?.() ?? "The request itself is at fault: see docs/reference/errors.md.";
    return `${count} x ${code}: ${meaning}`;
  });
}

function unmatched(answers, failedChecks, expected) {
  const allAsExpected = Object.entries(answers).every(([code, count]) => count === 0 || expected.includes(code));
  if (failedChecks === 0 || !allAsExpected) return [];
  return [
    `${failedChecks} checks failed though the codes are the expected ones: see which under "checks". For "accepted" that is a ` +
      "matchedCount that is 0 or another than the targets say: ask POST /api/webhook/workflow/preview why.",
  ];
}

function generator(dropped, p99, limit) {
  if (dropped === 0) return [];
  const cause =
    p99 > limit
      ? "the answers take so long that all MAX_VUS were waiting: the server, or what it waits for, is slower than RATE"
      : "answers are quick, so the generator is the bottleneck: run k6 on another machine, or give it more CPU or MAX_VUS";
  return [`${dropped} webhooks were not begun in time (dropped iterations), and the rate was not the one asked for: ${cause}.`];
}

function slowness(p99, limit, server) {
  const slow = `p99 is ${p99.toFixed(1)} ms, over ${limit} ms`;
  if (!server) {
    return [`${slow}. Give --admin-url to see whether the time is lost in Hookgate, in Redis or on the way.`];
  }
  const errors = Object.entries(server.redisErrors).map(([kind, count]) => `${kind} ${count}`);
  if (errors.length > 0) {
    return [`${slow}, and calls to Redis failed meanwhile (${errors.join(", ")}): webhooks have waited for it. See Redis' log and Hookgate's.`];
  }
  const figures = `${slow}; Hookgate used ${server.cores.toFixed(1)} cores`;
  if (server.p99 < p99 / 2) {
    return [
      `${figures} and its own p99 is at most ${server.p99} ms: the time is lost before it, in the network, a proxy, or a ` +
        "generator that is out of CPU.",
    ];
  }
  if (server.redisP99 >= server.p99 / 4) {
    return [
      `${figures}, and the p99 of calls to Redis is up to ${server.redisP99} ms: Redis is what is waited for. Look at its CPU (it has one ` +
        "thread), SLOWLOG, LATENCY DOCTOR, appendfsync, and the network to it.",
    ];
  }
  if (server.cores < IDLE_CORES) {
    return [
      `${figures}, which is little, and calls to Redis are quick: webhooks wait for their turn. Look at bodies that arrive slowly ` +
        "and at queue.connections and queue.batch.",
    ];
  }
  return [`${figures}, and Redis is quick: Hookgate lacks CPU. Give it cores (server.workers), or run one more.`];
}

function memory(server) {
  if (!server || server.memoryAfter < server.memoryBefore * 1.5 + 64 * 1024 * 1024) return [];
  return [
    "Hookgate's memory has grown by more than half. Run for longer: it should level off at what limits.in_flight_bytes, " +
      "connections and the index need.",
  ];
}
