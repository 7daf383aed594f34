
"use strict";
// Shows /status.json. Strings from there become text only by textContent.

const INTERVAL = 5000; // milliseconds between two requests while the page is visible
const TIMEOUT = 4000; // milliseconds for one request
const SVG = "http://www.w3.org/2000/svg";
const STATES = ["waiting", "active", "delayed", "prioritized", "failed"];

const byId = (id) => document.getElementById(id);
const show = (id, visible) => { byId(id).hidden = !visible; };
const sum = (values) => values.reduce((total, value) => total + value, 0);

// Only what has changed is written, so that a screen reader repeats nothing.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// A name from outside, whose direction does not change that of the text around it.
function named(tag, text, attributes) {
  const made = element(tag, undefined, attributes);
  made.append(element("bdi", text));
  return made;
}

// --- Numbers ---------------------------------------------------------------

const whole = new Intl.NumberFormat("en");
const count = (value) => (value === null || value === undefined ? "unknown" : whole.format(value));

// At most two decimals.
const short = (value) => String(Number(value.toFixed(2)));

function rate(value) {
  if (value === 0) return "0";
  if (value < 0.01) return "< 0.01";
  return value < 10 ? short(value) : whole.format(Math.round(value));
}

function milliseconds(seconds) {
  if (seconds === null) return "–";
  const value = seconds * 1000;
  if (value >= 1000) return `${short(seconds)} s`;
  return `${value < 10 ? short(value) : Math.round(value)} ms`;
}

function span(seconds) {
  if (seconds === null) return "never";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const clock = (date) => date.toLocaleTimeString();
const dated = (text) => (text === null ? "unknown" : new Date(text).toLocaleString());

// --- Charts ----------------------------------------------------------------

const WIDTH = 340, HEIGHT = 120, LEFT = 50, RIGHT = 6, TOP = 10, BOTTOM = 18;

// The next round number, so that the scale does not change with every step.
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

// A line for each run of known values; a short one for a lone value.
function lines(values, x, y) {
  const runs = [[]];
  values.forEach((value, at) => {
    if (value === null) runs.push([]);
    else runs[runs.length - 1].push(`${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  });
  return runs.filter((run) => run.length > 0).map((run) => {
    const [first] = run;
    return run.length > 1 ? `M${first}L${run.slice(1).join(" ")}` : `M${first}m-2,0h4`;
  }).join("");
}

// Draws series over the ages of their steps. Each series has a name, values and a class.
function chart(id, ages, format, series) {
  const known = series.flatMap(({ values }) => values).filter((value) => value !== null);
  const most = ceiling(Math.max(0, ...known));
  const oldest = Math.max(60, ...ages);
  const x = (at) => LEFT + (1 - ages[at] / oldest) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - value / most) * (HEIGHT - TOP - BOTTOM);
  const last = ({ name, values }) => {
    const value = values.length > 0 ? values[values.length - 1] : null;
    return `${name} now ${value === null ? "none" : format(value)}`;
  };
  const label = `${series.map(last).join(", ")}; scale up to ${format(most)}`;
  const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 1]) {
    const at = y(most * share);
    drawing.append(shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    drawing.append(shape("text", { x: LEFT - 6, y: at + 4, "text-anchor": "end" }, share === 0 ? "0" : format(most * share)));
  }
  drawing.append(shape("text", { x: LEFT, y: HEIGHT - 3 }, `${span(oldest)} ago`));
  drawing.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 3, "text-anchor": "end" }, "now"));
  for (const { values, kind } of series) drawing.append(shape("path", { class: kind, d: lines(values, x, y) }));
  const legend = element("ul", undefined, { class: "legend" });
  for (const { name, kind } of series) {
    const key = shape("svg", { viewBox: "0 0 26 8", "aria-hidden": "true" });
    key.append(shape("path", { class: kind, d: "M1,4L25,4" }));
    const entry = element("li");
    entry.append(key, name);
    legend.append(entry);
  }
  const figure = byId(id);
  figure.replaceChildren(figure.querySelector("figcaption"), drawing, legend);
}

function charts({ steps }) {
  const ages = steps.age_seconds, lengths = steps.length_seconds;
  const perSecond = (values) => values.map((value, at) => (lengths[at] > 0 ? value / lengths[at] : 0));
  const nothing = ages.map(() => 0);
  const add = (one, other) => one.map((value, at) => value + other[at]);
  const isRefused = ([code]) => !isServed(code);
  const refused = Object.entries(steps.requests).filter(isRefused).map(([, values]) => values);
  const served = Object.entries(steps.requests).filter(([code]) => isServed(code)).map(([, values]) => values);
  chart("chart-requests", ages, rate, [
    { name: "accepted", kind: "one", values: perSecond(served.reduce(add, nothing)) },
    { name: "refused", kind: "two", values: perSecond(refused.reduce(add, nothing)) },
  ]);
  chart("chart-latency", ages, milliseconds, [
    { name: "p50", kind: "one", values: steps.p50_seconds },
    { name: "p99", kind: "two", values: steps.p99_seconds },
  ]);
  chart("chart-jobs", ages, rate, [{ name: "jobs", kind: "one", values: perSecond(steps.jobs) }]);
}

// --- Parts of the page -----------------------------------------------------

const isServed = (code) => code === "accepted" || code === "handshake";

function rows(id, made) {
  byId(id).querySelector("tbody").replaceChildren(...made);
}

function row(...cells) {
  const made = element("tr");
  made.append(...cells);
  return made;
}

const number = (text) => element("td", text, { class: "number" });
const rowHead = (text) => named("th", text, { scope: "row" });

function head(status) {
  const { ready, alive, degraded } = status;
  const [kind, words] = !alive ? ["bad", "✕ not alive"]
    : !ready ? ["bad", "✕ not ready"]
    : degraded.length > 0 ? ["warn", "! ready, degraded"]
    : ["good", "✓ ready"];
  const state = byId("state");
  say(state, words);
  state.className = `state ${kind}`;
  document.title = `Hookgate: ${words.slice(2)}`;
  say(byId("version"), `${status.version} (${status.commit})`);
  say(byId("uptime"), `up ${span(status.uptime_seconds)}`);
}

function problem({ part, reason, hint }, kind) {
  const made = element("li", undefined, { class: kind });
  const line = element("p");
  line.append(named("strong", part), ": ", element("bdi", reason));
  made.append(line);
  if (hint !== null) made.append(element("p", hint, { class: "hint" }));
  return made;
}

function problems({ ready, reasons, degraded }) {
  const all = [...reasons.map((each) => problem(each, "bad")), ...degraded.map((each) => problem(each, "warn"))];
  show("problems", all.length > 0);
  say(byId("problems-title"), ready ? "Needs attention" : "Not ready because");
  byId("problem-list").replaceChildren(...all);
}

function traffic({ requests, history }) {
  const all = Object.entries(history.requests);
  const refused = all.filter(([code]) => !isServed(code));
  const total = (entries) => sum(entries.map(([, value]) => value));
  say(byId("span"), `last ${span(history.seconds)}`);
  say(byId("codes-span"), `Last ${span(history.seconds)}`);
  say(byId("tile-requests"), count(total(all)));
  say(byId("tile-refused"), count(total(refused)));
  say(byId("tile-jobs"), count(history.jobs));
  say(byId("tile-p50"), milliseconds(history.p50_seconds));
  say(byId("tile-p99"), milliseconds(history.p99_seconds));
  say(byId("tile-flight"), count(requests.in_flight));
  say(byId("tile-connections"), count(requests.connections));
  const codes = Object.entries(requests.total).sort(([, one], [, other]) => other - one);
  const made = codes.map(([code, value]) => row(rowHead(code), number(count(history.requests[code] ?? 0)), number(count(value))));
  if (made.length === 0) made.push(row(element("td", "No request yet.", { colspan: "3", class: "quiet" })));
  rows("codes", made);
  charts(history);
}

function server({ server: known, address }) {
  const made = element("td");
  made.append(element("bdi", address));
  const words = known === null ? ["✕ no answer"] : [known.software, known.version, known.mode, known.role].filter((word) => word !== null);
  made.append(element("br"), named("span", words.join(" "), { class: "quiet" }));
  return made;
}

function queues(all) {
  rows("queues", all.map((queue) => row(
    rowHead(queue.name),
    server(queue),
    element("td", `${count(queue.connections_open)} of ${count(queue.connections)} open`),
    ...STATES.map((state) => number(count(queue.jobs[state]))),
    number(count(queue.jobs_enqueued)),
  )));
}

function pairs(id, entries) {
  const made = entries.filter(([, value]) => value !== null).flatMap(([name, value]) => [element("dt", name), named("dd", value)]);
  byId(id).replaceChildren(...made);
}

function index(status) {
  const { source } = status;
  const database = source.database === null ? "" : `, database ${source.database}`;
  const conflicts = (value) => (value > 0 ? count(value) : null);
  pairs("index", [
    ["Source", `${source.kind === "mongodb" ? "MongoDB" : "file"} ${source.address}${database}`],
    ["Age", status.age_seconds === null ? "not loaded" : span(status.age_seconds)],
    ["Workflows with a trigger", count(status.workflows)],
    ["Triggers", count(status.triggers)],
    ["API keys", count(status.api_keys)],
    ["Conflicting API keys", conflicts(status.conflicting_api_keys)],
    ["Conflicting user ids", conflicts(status.conflicting_user_ids)],
    ["Last snapshot", status.snapshot_age_seconds === null ? null : `${span(status.snapshot_age_seconds)} ago`],
  ]);
  const condition = ({ age_seconds: age, is_current: isCurrent }) => {
    if (age === null) return "✕ not loaded";
    return isCurrent ? "✓ current" : "! not current: misses get 503";
  };
  rows("collections", status.collections.map((collection) => row(
    rowHead(collection.name), element("td", condition(collection)), number(span(collection.age_seconds)),
    number(leftOutCount(collection.left_out)),
  )));
  leftOut(status.collections);
}

const leftOutCount = (left) => (left.is_complete ? "" : "at least ") + count(left.count);

function leftOut(collections) {
  const made = collections.flatMap(({ name, left_out: left }) => left.documents.map((document) => row(
    element("td", name), rowHead(document.id),
    element("td", document.is_whole ? "the document" : "parts of it"), named("td", document.reasons.join("; ")),
  )));
  const all = sum(collections.map(({ left_out: left }) => left.count));
  show("left-out-block", made.length > 0);
  rows("left-out", made);
  say(byId("left-out-more"), all > made.length ? `The first ${count(made.length)} of ${count(all)}; the log names more.` : "");
}

function limits(organizations) {
  show("limits-none", organizations.length === 0);
  show("limits-block", organizations.length > 0);
  rows("limits", organizations.map(({ organization, limit, seconds }) => row(
    rowHead(organization), element("td", limit), number(count(seconds)),
  )));
}

function configuration({ file, read_at: readAt, last_reload: last }) {
  const keys = (list) => (list !== undefined && list.length > 0 ? list.join(", ") : null);
  const result = () => `${last.result === "applied" ? "✓ applied" : "✕ refused; nothing has changed"}, ${dated(last.at)}`;
  pairs("configuration", [
    ["File", file],
    ["In effect since", dated(readAt)],
    ["Last reload", last === null ? "none since the start" : result()],
    ["Applied", keys(last?.changed)],
    ["Waits for a restart", keys(last?.pending)],
    ["Faults in", keys(last?.faults)],
  ]);
}

// --- Refreshing ------------------------------------------------------------

let timer = null;
let isAsking = false;
let lastAnswer = null;

function render(status) {
  head(status);
  problems(status);
  traffic(status);
  queues(status.queues);
  index(status.index);
  limits(status.organizations_at_limit);
  configuration(status.configuration);
  show("main", true);
}

function silent() {
  const since = lastAnswer === null ? "No answer yet" : `No answer since ${clock(lastAnswer)}; what follows is from then`;
  say(byId("silence"), `✕ ${since}. Asking again every ${INTERVAL / 1000} s.`);
  show("silence", true);
  say(byId("state"), "? no answer");
  byId("state").className = "state bad";
  document.title = "Hookgate: no answer";
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden || isAsking) return;
  isAsking = true;
  const status = await ask();
  isAsking = false;
  timer = setTimeout(refresh, INTERVAL);
  if (status === null) return silent();
  lastAnswer = new Date();
  show("silence", false);
  say(byId("updated"), `as of ${clock(lastAnswer)}`);
  render(status);
}

// The status; null if there is no answer.
async function ask() {
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

document.addEventListener("visibilitychange", refresh);
refresh();
