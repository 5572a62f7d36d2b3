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

const HEALTHY = 'container_healthy{service="api"}';
const REQUESTS = 'traefik_service_requests_total{service="api@docker"';
const RATE = (w) => `sum(rate(${REQUESTS}}[${w}]))`;
const SHARE = (codes) => (w) =>
  `(sum(rate(${REQUESTS},code=~"${codes}"}[${w}])) or vector(0)) / (${RATE(w)} > 0)`;
const QUANTILE = (share) => (w) =>
  `histogram_quantile(${share}, sum by (le) ` +
  `(rate(http_server_request_duration_seconds_bucket[${w}])))`;
const CPU = (by, service) => (w) =>
  `sum by (${by}) (rate(container_cpu_usage_seconds_total{${service}}[${w}]))`;
const MEMORY = (by, service) => () =>
  `sum by (${by}) (container_memory_working_set_bytes{${service}})`;
const HOST_CPU = (w) => `1 - avg(rate(node_cpu_seconds_total{mode="idle"}[${w}]))`;
const HOST_MEMORY = () => "1 - min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)";
const HOST_DISK = () => "1 - min(node_filesystem_avail_bytes / node_filesystem_size_bytes)";

/**
 * The figures on top. `query` gets the window of its rates; `level` colours the value; `other` asks
 * for what `level` and `note` compare with; `empty` is said when there is no value.
 */
export const FIGURES = [
  {
    title: "Replicas up",
    query: () => `(sum(${HEALTHY}) or vector(0)) and on () up{job="containers"} == 1`,
    other: `count(${HEALTHY}) or vector(0)`,
    show: number,
    level: (up, all) => (up === 0 ? "bad" : up < all ? "warning" : "good"),
    note: (all) => `of ${all}`,
  },
  {title: "Requests/s", query: RATE, show: number},
  {
    title: "Errors, 5xx",
    query: SHARE("5.."),
    show: percent,
    level: above(0.001, 0.01),
    empty: "no requests",
  },
  {title: "Errors, 4xx", query: SHARE("4.."), show: percent, empty: "no requests"},
  {title: "Response, p50", query: QUANTILE(0.5), show: seconds},
  {title: "Response, p99", query: QUANTILE(0.99), show: seconds, level: above(0.5, 1)},
  {title: "CPU in use", query: HOST_CPU, show: percent, level: above(0.9, 0.97)},
  {title: "Memory in use", query: HOST_MEMORY, show: percent, level: above(0.8, 0.9)},
  {title: "Fullest disk", query: HOST_DISK, show: percent, level: above(0.8, 0.9)},
  {
    title: "Certificate ends in",
    query: () => "min(max by (sans) (traefik_tls_certs_not_after)) - time()",
    show: period,
    level: below(14 * 86400, 7 * 86400),
    empty: "Traefik's own",
  },
  {
    title: "Age of backup",
    query: () => 'time() - max(berth_backup_last_success_timestamp_seconds{kind!="log"})',
    other: "max(berth_backup_base_seconds_max)",
    show: period,
    level: within,
    note: atMost,
    empty: "not set up",
  },
  {
    title: "Age of proof",
    query: () => "time() - max(berth_backup_last_proof_timestamp_seconds)",
    other: "max(berth_backup_proof_seconds_max)",
    show: period,
    level: within,
    note: atMost,
    empty: "none",
  },
];

const BYTE_STEPS = Array.from({length: 24}, (_, power) => 2 ** (20 + power));
// When the eldest replica of each version started.
export const VERSIONS = "min by (version) (app_info * on (replica) group_left () "
  + 'container_start_time_seconds{service="api"})';
/** The charts. `lines` has a query each; those that answer with several are named by that label. */
export const CHARTS = [
  {title: "Requests per second", show: number, lines: {all: RATE}},
  {title: "Errors", show: percent, least: 0.01, lines: {"4xx": SHARE("4.."), "5xx": SHARE("5..")}},
  {title: "Response time", show: seconds, lines: {p50: QUANTILE(0.5), p99: QUANTILE(0.99)}},
  {
    title: "Replicas by version",
    show: number,
    stepped: true,
    steps: [1, 2, 5, 10, 20, 50],
    lines: {version: () => "count by (version) (app_info)"},
  },
  {
    title: "CPU by replica, of one core",
    show: percent,
    lines: {replica: CPU("replica", 'service="api"')},
  },
  {
    title: "Memory by replica",
    show: bytes,
    steps: BYTE_STEPS,
    lines: {
      replica: MEMORY("replica", 'service="api"'),
      limit: () => 'max(container_spec_memory_limit_bytes{service="api"})',
    },
  },
  {title: "CPU by service, of one core", show: percent, lines: {service: CPU("service", "")}},
  {
    title: "Memory by service",
    show: bytes,
    steps: BYTE_STEPS,
    lines: {service: MEMORY("service", "")},
  },
  {
    title: "Host",
    show: percent,
    least: 1,
    lines: {CPU: HOST_CPU, memory: HOST_MEMORY, "fullest disk": HOST_DISK},
  },
];
