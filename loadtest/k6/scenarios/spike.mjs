// Is a flood survived, and is all as before when it is over? RATE (100), then SPIKE (10) times as much, then RATE again, each
// for DURATION (30s). In the flood a refusal is right if it says when to come again; afterwards none is.
import { check } from "k6";
import { constant, goodEnoughIn, number, quickIn } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { codeOf, isAccepted, nextTarget, send } from "../webhooks.mjs";

const rate = number("RATE", 100);
const flood = rate * number("SPIKE", 10);
/** Of the run, that each of the three scenarios takes. */
const SHARE = 1 / 3;
const duration = __ENV.DURATION || "30s";
const seconds = secondsOf(duration);
const SHEDDING = ["overloaded", "rate_limited", "queue_unavailable"];

export const options = optionsOf(
  {
    calm: constant(rate, duration, { exec: "calm" }),
    spike: constant(flood, duration, { exec: "spike", startTime: `${seconds}s` }),
    // What the flood has left behind may still be under way for a few seconds.
    after: constant(rate, duration, { exec: "calm", startTime: `${2 * seconds + 5}s` }),
  },
  {
    ...quickIn("calm"),
    ...quickIn("after"),
    ...goodEnoughIn("calm", rate, SHARE),
    ...goodEnoughIn("spike", flood, SHARE),
    ...goodEnoughIn("after", rate, SHARE),
  },
);
export const setup = before;
export const handleSummary = summaryOf("spike");

export function calm() {
  const target = nextTarget();
  check(send(target), { "accepted before and after": (response) => isAccepted(response, target) });
}

export function spike() {
  const target = nextTarget();
  check(send(target), {
    "accepted in the flood, or told when to come again": (response) =>
      isAccepted(response, target) || (SHEDDING.includes(codeOf(response)) && Number(response.headers["Retry-After"]) > 0),
  });
}

function secondsOf(text) {
  const [, count, unit] = /^(\d+)(s|m|h)$/.exec(text) ?? [];
  if (!count) throw new Error(`DURATION is "${text}", but should be like 30s, 5m or 1h`);
  return Number(count) * { s: 1, m: 60, h: 3600 }[unit];
}
