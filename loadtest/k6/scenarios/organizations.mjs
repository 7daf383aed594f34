// One organization is loud: four fifths of RATE (200) for DURATION (1m) are its, the others share the rest. Do these
// notice? TARGETS must name several organizations. With [limits.organization] the loud one may get 429.
import { check } from "k6";
import exec from "k6/execution";
import { constant, goodEnoughIn, number, quickIn } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { codeOf, isAccepted, send, targets } from "../webhooks.mjs";

const rate = number("RATE", 200);
const loudRate = Math.ceil(rate * 0.8);
const quietRate = Math.ceil(rate * 0.2);
const duration = __ENV.DURATION || "1m";
const organizationOf = (target) => target.organization ?? target.token;
const loudTargets = targets.filter((target) => organizationOf(target) === organizationOf(targets[0]));
const quietTargets = targets.filter((target) => organizationOf(target) !== organizationOf(targets[0]));
if (quietTargets.length === 0) throw new Error("TARGETS must name webhooks of at least two organizations");

export const options = optionsOf(
  {
    loud: constant(loudRate, duration, { exec: "loud" }),
    quiet: constant(quietRate, duration, { exec: "quiet" }),
  },
  {
    ...quickIn("quiet"),
    ...goodEnoughIn("quiet", quietRate),
    ...goodEnoughIn("loud", loudRate),
  },
);
export const setup = before;
export const handleSummary = summaryOf("organizations", ["accepted", "rate_limited"]);

export function loud() {
  const target = loudTargets[exec.scenario.iterationInTest % loudTargets.length];
  check(send(target), {
    "the loud one is accepted or 429": (response) => isAccepted(response, target) || codeOf(response) === "rate_limited",
  });
}

export function quiet() {
  const target = quietTargets[exec.scenario.iterationInTest % quietTargets.length];
  check(send(target), { "the others are accepted": (response) => isAccepted(response, target) });
}
