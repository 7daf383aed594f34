// Opens a page in Chromium for tests, and reports what it shows.
//
// node page.mjs CHROMIUM
//
//   stdin   one command per line: {"do":"open","url":URL,"width":PIXELS,"scheme":"light"|"dark",
//           "manual":true|false}, {"do":"read"}, {"do":"tick"}, {"do":"visible","value":true|false},
//           {"do":"shot","file":FILE}
//   stdout  {"shown":{…},"faults":[…],"requests":[…]}: what the page shows, each error of its
//           console and each violation of its policy, and the path or URL of each request
//
// With "manual" the timers of the page fire only at "tick". Commands run in a world of their own,
// because the policy of the page forbids foreign scripts.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
let page, world, faults, requests;

// Runs in the page before its own script.
function prepare(manual) {
  const root = () => document.documentElement.dataset;
  addEventListener("securitypolicyviolation", (event) => {
    root().violation = `${event.violatedDirective} ${event.blockedURI}`;
  });
  Object.defineProperty(Document.prototype, "hidden", { get: () => root().isHidden === "yes" });
  const ask = window.fetch;
  window.fetch = (...parameters) => {
    root().fetches = String(Number(root().fetches ?? 0) + 1);
    return ask(...parameters);
  };
  if (!manual) return;
  const pending = new Map();
  let next = 1;
  window.setTimeout = (callback) => pending.set(next, callback) && next++;
  window.clearTimeout = (timer) => pending.delete(timer);
  addEventListener("test-tick", () => {
    const due = [...pending.values()];
    pending.clear();
    due.forEach((callback) => callback());
  });
}

async function open({ url, width, scheme, manual }) {
  await page?.context().close();
  [faults, requests] = [[], []];
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, locale: "en-GB", timezoneId: "UTC" });
  page = await context.newPage();
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && faults.push(line.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("request", (request) => requests.push(request.url().replace(new URL(url).origin, "")));
  await page.addInitScript(prepare, manual);
  await page.goto(url);
  const session = await context.newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId: contextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id });
  world = async (run, parameter) => {
    const expression = `(${run})(${JSON.stringify(parameter ?? null)})`;
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { contextId, expression, returnByValue: true });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
}

// Runs in the page.
function read() {
  const text = (element) => element.innerText.replace(/\s+/g, " ").trim();
  const shown = (id) => (document.getElementById(id).checkVisibility() ? text(document.getElementById(id)) : null);
  const all = (selector, value) => [...document.querySelectorAll(selector)].map(value);
  const byId = (selector, value) => Object.fromEntries(all(selector, (element) => [element.id, value(element)]));
  const cells = (row) => [...row.cells].map(text);
  return {
    title: document.title,
    state: shown("state"),
    silence: shown("silence"),
    main: document.getElementById("main").checkVisibility(),
    problems: all("#problem-list li", text),
    tiles: byId(".tiles dd", text),
    tables: byId("table", (table) => [...table.tBodies[0].rows].map(cells)),
    pairs: byId(".pairs", (list) => Object.fromEntries([...list.querySelectorAll("dt")].map((name) => [text(name), text(name.nextElementSibling)]))),
    charts: byId("figure", (figure) => figure.querySelector("svg[role=img]")?.getAttribute("aria-label") ?? null),
    landmarks: all("header, main, footer, nav", (element) => element.localName),
    headless: all("table", (table) => table.id).filter((id) => document.querySelectorAll(`#${id} thead th[scope=col]`).length === 0),
    scripts: all("script, iframe, img", (element) => element.localName),
    isWide: document.documentElement.scrollWidth > innerWidth,
    fetches: Number(document.documentElement.dataset.fetches ?? 0),
    violation: document.documentElement.dataset.violation ?? null,
  };
}

const commands = {
  open,
  read: () => {},
  tick: () => world(() => { dispatchEvent(new Event("test-tick")); }),
  visible: ({ value }) => world((is) => {
    document.documentElement.dataset.isHidden = is ? "no" : "yes";
    document.dispatchEvent(new Event("visibilitychange"));
  }, value),
  shot: ({ file }) => page.screenshot({ path: file, fullPage: true, caret: "initial" }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await commands[command.do](command);
  const shown = await world(read);
  if (shown.violation !== null) faults.push(shown.violation);
  console.log(JSON.stringify({ shown, faults, requests }));
}
await browser.close();
