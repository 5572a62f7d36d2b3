// What the page asks Prometheus, and how it shows the answers.

const round = (value, digits = 2) => value.toLocaleString("en", {maximumSignificantDigits: digits});
const number = (value) => (value < 100 ? round(value, 3) : Math.round(value).toLocaleString("en"));
const percent = (value) => {
  if (value > 0 && value < 0.0001) return "< 0.01 %";
  return `${value >= 0.1 ? Math.round(value * 100) : round(value * 100)} %`;
};
const seconds = (value) => (value < 1 ? `${round(value * 1000, 3)} ms` : `${round(value, 3)} s`);
const bytes = (value) =>
  value < 2 ** 30 ? `${round(value / 2 ** 20, 3)} MiB` : `${round(value / 2 ** 30, 3)} GiB`;
const PERIODS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const period = (value) => {
  const [name, length] = PERIODS.find(([, length]) => value >= 2 * length) ?? PERIODS.at(-1);
  return `${Math.floor(value / length)} ${name}`;
};

// What counts as bad, from a value on, or up to one.
const above = (warning, bad) => (value) =>
  value >= bad ? "bad" : value >= warning ? "warning" : "good";
const below = (warning, bad) => (value) => above(-warning, -bad)(-value);
const within = (value, most) => (value > most ? "bad" : "good");
const atMost = (most) => `at most ${period(most)}`;

// Each figure's definition is a rule in metrics/prometheus/rules.yml.
const REPLICAS = "berth:replicas:healthy";
const RATE = "sum(berth:requests:rate)";
const ERRORS = (codes) => `berth:errors:ratio{codes="${codes}"}`;
const LATENCY = (quantile) => `berth:latency:seconds{quantile="${quantile}"}`;
const HOST_CPU = "berth:machine_cpu:ratio";
const HOST_MEMORY = "berth:machine_memory:ratio";
const HOST_DISK = "max(berth:disk:used_ratio)";
const API = '{service="api"}';

/**
 * The figures on top. `level` colours the value; `other` asks for what `level` and `note` compare
 * with; `empty` is said when there is no value.
 */
export const FIGURES = [
  {
    title: "Replicas up",
    query: REPLICAS,
    other: "berth:replicas:count",
    show: number,
    level: (up, all) => (up === 0 ? "bad" : up < all ? "warning" : "good"),
    note: (all) => `of ${all}`,
  },
  {title: "Requests/s", query: RATE, show: number},
  {
    title: "Errors, 5xx",
    query: ERRORS("5xx"),
    show: percent,
    level: above(0.001, 0.01),
    empty: "no requests",
  },
  {title: "Errors, 4xx", query: ERRORS("4xx"), show: percent, empty: "no requests"},
  {title: "Response, p50", query: LATENCY(0.5), show: seconds, empty: "no requests"},
  {
    title: "Response, p99",
    query: LATENCY(0.99),
    show: seconds,
    level: above(0.5, 1),
    empty: "no requests",
  },
  {title: "CPU in use", query: HOST_CPU, show: percent, level: above(0.9, 0.97)},
  {title: "Memory in use", query: HOST_MEMORY, show: percent, level: above(0.8, 0.9)},
  {title: "Fullest disk", query: HOST_DISK, show: percent, level: above(0.8, 0.9)},
  {
    title: "Certificate ends in",
    query: "min(berth:certificate:seconds_left)",
    show: period,
    level: below(14 * 86400, 7 * 86400),
    empty: "Traefik's own",
  },
  {
    title: "Age of backup",
    query: 'berth:backup:age_seconds{kind="base"}',
    other: "max(berth_backup_base_seconds_max)",
    show: period,
    level: within,
    note: atMost,
    empty: "not set up",
  },
  {
    title: "Age of proof",
    query: 'berth:backup:age_seconds{kind="proof"}',
    other: "max(berth_backup_proof_seconds_max)",
    show: period,
    level: within,
    note: atMost,
    empty: "none",
  },
];

const BYTE_STEPS = Array.from({length: 24}, (_, power) => 2 ** (20 + power));
export const VERSIONS = "berth:version:start_seconds";
/** The charts. `lines` has a query each; those that answer with several are named by that label. */
export const CHARTS = [
  {title: "Requests per second", show: number, lines: {all: RATE}},
  {title: "Errors", show: percent, least: 0.01, lines: {"4xx": ERRORS("4xx"), "5xx": ERRORS("5xx")}},
  {title: "Response time", show: seconds, lines: {p50: LATENCY(0.5), p99: LATENCY(0.99)}},
  {
    title: "Replicas by version",
    show: number,
    stepped: true,
    steps: [1, 2, 5, 10, 20, 50],
    lines: {version: "berth:version:replicas"},
  },
  {
    title: "CPU by replica, of one core",
    show: percent,
    lines: {replica: `berth:container_cpu:cores${API}`},
  },
  {
    title: "Memory by replica",
    show: bytes,
    steps: BYTE_STEPS,
    lines: {
      replica: `berth:container_memory:bytes${API}`,
      limit: `max(berth:container_memory:limit_bytes${API})`,
    },
  },
  {
    title: "CPU by service, of one core",
    show: percent,
    lines: {service: "sum by (service) (berth:container_cpu:cores)"},
  },
  {
    title: "Memory by service",
    show: bytes,
    steps: BYTE_STEPS,
    lines: {service: "sum by (service) (berth:container_memory:bytes)"},
  },
  {
    title: "Host",
    show: percent,
    least: 1,
    lines: {CPU: HOST_CPU, memory: HOST_MEMORY, "fullest disk": HOST_DISK},
  },
];
