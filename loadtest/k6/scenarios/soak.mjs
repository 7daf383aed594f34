// An ordinary rate for hours, which shows what grows: RATE (100) for DURATION (1h). Give ADMIN_URL, so that memory is
// looked at, and have workers take the jobs, or it is Redis' memory that grows.
import { check } from "k6";
import { constant, goodEnough, number } from "../pace.mjs";
import { before, options as optionsOf, summaryOf } from "../summary.mjs";
import { isAccepted, nextTarget, send } from "../webhooks.mjs";

const rate = number("RATE", 100);

export const options = optionsOf({ soak: constant(rate, __ENV.DURATION || "1h") }, goodEnough(rate));
export const setup = before;
export const handleSummary = summaryOf("soak");

export default function () {
  const target = nextTarget();
  check(send(target), { accepted: (response) => isAccepted(response, target) });
}
