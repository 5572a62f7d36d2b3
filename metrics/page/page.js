// The status page: asks Prometheus, through Traefik's login, and shows what it answers.
import {Chart} from "./chart.js";
import {byId, clock, element, MOMENT, say} from "./document.js";
import {CHARTS, FIGURES, VERSIONS} from "./queries.js";

// Seconds that are looked back on, and seconds between two points: no more than a chart can show.
const RANGES = {
  "15m": {name: "15 min", seconds: 900, step: 5},
  "1h": {name: "1 h", seconds: 3600, step: 30},
  "6h": {name: "6 h", seconds: 6 * 3600, step: 120},
  "24h": {name: "24 h", seconds: 24 * 3600, step: 600},
  "7d": {name: "7 d", seconds: 7 * 86400, step: 3600},
};

// Not relative to the document: its address may have a user and a password in it.
const API = new URL("api/v1/", location.origin + location.pathname);

class Trouble extends Error {}

async function ask(path, parameters) {
  let answer;
  try {
    answer = await fetch(new URL(`${path}?${new URLSearchParams(parameters)}`, API), {
      signal: AbortSignal.timeout(20_000),
    });
  } catch {
    throw new Trouble("The server cannot be reached.");
  }
  if (answer.status === 401) throw new Trouble("The login has ended: load this page anew.");
  if (answer.status === 429) throw new Trouble("Too many requests from this address: RATE_LIMIT.");
  const body = await answer.json().catch(() => null);
  if (!body?.status) throw new Trouble(`Prometheus does not answer (${answer.status}).`);
  if (body.status !== "success") throw new Trouble(`Prometheus refuses a query: ${body.error}`);
  return body.data;
}

/** Return the value that a query has at a time, or null. */
async function valueOf(query, time) {
  const [found] = (await ask("query", {query, time})).result;
  return found && isFinite(found.value[1]) ? Number(found.value[1]) : null;
}

/** Return a query's lines over a span, [{name, values}], with null where there is no value. */
async function linesOf(name, query, {start, end, step}) {
  const {result} = await ask("query_range", {query, start, end, step});
  return result.map(({metric, values}) => {
    const line = new Array((end - start) / step + 1).fill(null);
    for (const [time, value] of values) {
      if (isFinite(value)) line[Math.round((time - start) / step)] = Number(value);
    }
    return {name: metric[name] ?? name, values: line};
  });
}

/** Return [{version, time}], one for each point at which a version runs that did not before. */
function deploysIn(versions) {
  const found = [];
  let before = null;
  for (let index = 0; index < (versions[0]?.values.length ?? 0); index++) {
    const running = versions.filter(({values}) => values[index] !== null);
    if (!running.length) continue; // nobody looked, or nothing ran: neither is a deploy
    const appeared = running.filter((one) => before && !before.includes(one));
    found.push(...appeared.map(({name, values}) => ({version: name, time: values[index]})));
    before = running;
  }
  return found;
}

/** One of FIGURES, put at the end of an element. */
class Figure {
  constructor(kind, parent) {
    this.kind = kind;
    this.value = element("dd", {className: "figure", textContent: "…"});
    this.remark = element("dd", {className: "note"});
    const title = element("dt", {textContent: kind.title});
    this.card = element("div", {}, title, this.value, this.remark);
    parent.append(this.card);
  }

  async show(time) {
    const {kind} = this;
    const {query} = kind;
    const [value, other] = await Promise.all([
      valueOf(query, time),
      kind.other ? valueOf(kind.other, time) : null,
    ]);
    const known = value !== null;
    const level = known ? (kind.level?.(value, other) ?? "plain") : "none";
    Object.assign(this.card.dataset, {query, time, level, value: known ? value : ""});
    this.value.textContent = known ? kind.show(value) : (kind.empty ?? "no data yet");
    this.remark.textContent = (known && kind.note?.(other)) || "";
  }
}

/** Return all lines of one of CHARTS: at points far apart, the highest since the point before. */
async function linesFor(kind, span) {
  const highest = (query) =>
    span.step > 60 ? `max_over_time((${query})[${span.step}s:1m])` : query;
  const asked = Object.entries(kind.lines);
  const answers = asked.map(([name, query]) => linesOf(name, highest(query), span));
  return (await Promise.all(answers)).flat();
}

const figures = FIGURES.map((kind) => new Figure(kind, byId("figures")));
const charts = CHARTS.map((kind) => new Chart(kind, byId("charts")));
let range = RANGES[location.hash.slice(1)] ?? RANGES["1h"];
let turn = 0;
let timer;

/** Ask for everything and show it, unless `turn` has gone on. */
async function show(asked) {
  // By the server's clock, not this one's.
  const [time] = (await ask("query", {query: "time()"})).result;
  const {seconds: length, step} = range;
  const end = Math.floor(time / step) * step;
  const span = {start: end - length, end, step};
  const times = Array.from({length: length / step + 1}, (_, index) => span.start + index * step);
  const [versions, {alerts}, ...lines] = await Promise.all([
    linesOf("version", VERSIONS, span),
    ask("alerts", {}),
    ...CHARTS.map((kind) => linesFor(kind, span)),
  ]);
  if (asked !== turn) return; // another range was chosen meanwhile
  const deploys = deploysIn(versions);
  charts.forEach((chart, index) => chart.show(lines[index], times, deploys));
  await Promise.all(figures.map((figure) => figure.show(time)));
  const firing = alerts.filter(({state}) => state === "firing").map(({annotations}) => annotations);
  say("alerts", "li", firing.map(({summary, description}) => `${summary}: ${description}`));
  say("deploys", "span", deploys.map(({time, version}) => `${clock(time, MOMENT)} ${version}`));
  byId("updated").textContent = `As of ${clock(time, {timeStyle: "medium"})}`;
}

/** Show everything now, and again before long. */
async function refresh() {
  clearTimeout(timer);
  const asked = ++turn;
  try {
    await show(asked);
    say("trouble", "span", []);
    document.body.dataset.state = "shown";
  } catch (error) {
    if (asked !== turn) return;
    if (!(error instanceof Trouble)) throw error;
    say("trouble", "span", [`${error.message} What is shown may be old.`]);
    document.body.dataset.state = "trouble";
  } finally {
    const delay = Math.min(Math.max(range.step, 15), 60) * 1000;
    if (asked === turn && !document.hidden) timer = setTimeout(refresh, delay);
  }
}

function addRange([id, {name}]) {
  const input = element("input", {type: "radio", name: "range", value: id});
  input.checked = RANGES[id] === range;
  input.addEventListener("change", () => {
    range = RANGES[id];
    history.replaceState(null, "", `#${id}`);
    refresh();
  });
  byId("ranges").append(element("label", {}, input, element("span", {textContent: name})));
}

byId("host").textContent = location.host;
document.title = `Status of ${location.host}`;
Object.entries(RANGES).forEach(addRange);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else refresh();
});
refresh();
