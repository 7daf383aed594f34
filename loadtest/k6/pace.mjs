// How much is sent for how long, and what counts as good enough.
//
// RATE       webhooks a second that are begun, whether or not the earlier ones are answered
// DURATION   "30s", "5m", "1h"
// P99_MS     what 99 of 100 answers must keep to, by default 250
// MAX_VUS    how many webhooks may be under way, by default two seconds' worth of RATE

/** A number from the environment. */
export function number(name, standard) {
  const value = Number(__ENV[name] || standard);
  if (!(value > 0)) throw new Error(`${name} is "${__ENV[name]}", but should be a number above 0`);
  return value;
}

export const p99Limit = number("P99_MS", 250);

/** For a scenario with a constant rate. */
export function constant(rate, duration, more = {}) {
  const most = Math.ceil(number("MAX_VUS", Math.max(50, 2 * rate)));
  return {
    executor: "constant-arrival-rate",
    rate,
    duration,
    timeUnit: "1s",
    preAllocatedVUs: Math.min(most, Math.ceil(Math.max(20, rate / 4))),
    maxVUs: most,
    gracefulStop: "10s",
    ...more,
  };
}

/**
 * For one of several scenarios: every check passes and hardly a webhook could not be begun. It must have begun some, since
 * without samples every other bound is kept. k6 takes rates over the whole run, of which this scenario takes `share`.
 */
export function goodEnoughIn(scenario, rate, share = 1) {
  return {
    [`checks{scenario:${scenario}}`]: ["rate==1"],
    [`dropped_iterations{scenario:${scenario}}`]: [`rate<${(rate * share) / 100}`],
    [`iterations{scenario:${scenario}}`]: ["count>0"],
  };
}

/** Answers within P99_MS in one of several scenarios. */
export function quickIn(scenario) {
  return { [`http_req_duration{scenario:${scenario}}`]: [`p(99)<${p99Limit}`] };
}

/** Answers within P99_MS, hardly any webhook that could not be begun, and no check that fails. */
export function goodEnough(rate, more = {}) {
  return {
    "http_req_duration{kind:webhook}": [`p(99)<${p99Limit}`],
    dropped_iterations: [`rate<${rate / 100}`],
    checks: ["rate>0.999"],
    ...more,
  };
}
