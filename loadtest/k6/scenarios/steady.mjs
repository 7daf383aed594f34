// The rate that you expect: RATE (200) for DURATION (2m). An hour or more shows whether memory grows: give ADMIN_URL for that,
// and have workers take the jobs, or it is the memory of Redis that grows.
import { check } from "k6";
import { constant, goodEnough, number } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { isAccepted, nextTarget, send } from "../webhooks.mjs";

const rate = number("RATE", 200);

export const options = optionsOf({ steady: constant(rate, __ENV.DURATION || "2m") }, goodEnough(rate));
export const setup = before;
export const handleSummary = summaryOf("steady");

export default function () {
  const target = nextTarget();
  check(send(target), { accepted: (response) => isAccepted(response, target) });
}
