"""How the machine is used: from the last hour of Prometheus, or from a look at it now."""

import json
import os
import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from ops.advice import Service, Usage
from ops.checks import data, service
from ops.docker import DockerError, docker
from ops.facts import Facts
from ops.memory import Budget, limit
from ops.prometheus import Prometheus
from ops.stack import SERVICE, ids, running

_REQUESTS = "http_server_request_duration_seconds"
# By name: a value, or one of each service. See metrics/prometheus/rules.yml.
FIGURES = {
    "seconds": "time() - min(min_over_time(timestamp(berth:container_cpu:cores)[1h:1m]))",
    "busy": "berth:machine_cpu:cores",
    "cores": "sum by (service) (berth:container_cpu:cores)",
    "memory": "max by (service) (berth:container_memory:bytes)",
    "requests": "sum(berth:requests:rate)",
    "connections": "berth:database_connections:used",
    "killed": "sum by (service) (increase(container_oom_events_total[1h]))",
    "restarts": "sum by (service) (increase(container_restarts_total[1h]))",
    "p99": "histogram_quantile(0.99, avg_over_time(berth:latency:buckets[1h]))",
    "most_connections": "berth:database_connections:limit",
}
_AT_MOST = ("busy", "cores", "memory", "requests", "connections")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_READ_METRICS = """
import urllib.request
print(urllib.request.urlopen("http://localhost:9000/metrics", timeout=5).read().decode())
"""
_BUCKET = re.compile(rf'{_REQUESTS}_bucket{{.*le="([^"]+)".*}} (\S+)')


def history(facts: Facts, prometheus: Prometheus) -> Usage:
    """Return how the machine was used in the last hour.

    Raises:
        DockerError: Prometheus does not answer.
    """
    parts = []
    for name, expression in FIGURES.items():
        most = f"max_over_time(({expression})[1h:1m])" if name in _AT_MOST else expression
        parts.append(f'label_replace({most}, "figure", "{name}", "", "")')
    found = prometheus.query(" or ".join(parts))
    total = {one.labels["figure"]: one.value for one in found if "service" not in one.labels}
    of: dict[str, dict[str, float]] = defaultdict(dict)
    for one in found:
        if "service" in one.labels:
            of[one.labels["service"]][one.labels["figure"]] = one.value
    return _usage(
        facts,
        seconds=total.get("seconds", 0),
        is_history=True,
        busy=total.get("busy", 0),
        used=of,
        requests=total.get("requests", 0),
        p99=total.get("p99"),
        connections=int(total.get("connections", 0)),
        most_connections=int(total.get("most_connections", 0)),
    )


def look(facts: Facts, seconds: float) -> Usage:
    """Watch the machine for a while."""
    watched = running(facts.containers)
    names = {one.id: one.service for one in watched}
    began, busy, answered = time.monotonic(), _busy_seconds(), _answered(facts)
    samples: list[dict[str, Any]] = []
    count = 0
    while time.monotonic() < began + seconds or not count:
        told = docker("stats", "--no-stream", "--no-trunc", "--format=json", *names)
        samples += [json.loads(line) for line in told.splitlines()]
        count += 1
    took = time.monotonic() - began
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in samples:
        of = used[names[one["ID"]]]
        of["cores"] += float(one["CPUPerc"].rstrip("%")) / 100 / count
        of["memory"] = max(of["memory"], _bytes(one["MemUsage"].partition("/")[0]))
    for name, of in mishaps(facts).items():
        used[name] |= of
    ours = sum(of["cores"] for of in used.values())
    since = _busy_seconds()
    answers = {le: count - answered.get(le, 0) for le, count in _answered(facts).items()}
    found = data.connections(facts)
    return _usage(
        facts,
        seconds=took,
        is_history=False,
        busy=(since - busy) / took if busy and since else ours,
        used=used,
        requests=answers.get("+Inf", 0) / took if answers else None,
        p99=quantile(answers, 0.99),
        connections=found["used"],
        most_connections=found["most"],
    )


def mishaps(facts: Facts) -> dict[str, dict[str, float]]:
    """Return how many of each service's containers were killed or came back lately.

    Docker counts restarts from a container's making on: only the last of them has a time.
    """
    found: dict[str, dict[str, float]] = {}
    for one in running(facts.containers):
        of = found.setdefault(one.service, {"killed": 0, "restarts": 0})
        of["killed"] += service.ran_out_of_memory(one, facts)
        of["restarts"] += service.came_back(one, facts.now)
    return found


def _usage(facts: Facts, used: dict[str, dict[str, float]], **figures: Any) -> Usage:  # noqa: ANN401
    configured = facts.stack.configuration["services"]
    used.setdefault(SERVICE, {})
    services = {
        name: Service(
            cores=of.get("cores", 0),
            memory=int(of.get("memory", 0)),
            memory_limit=int(limit(configured[name])),
            core_limit=limit(configured[name], "cpus"),
            killed=round(of.get("killed", 0)),
            restarts=round(of.get("restarts", 0)),
        )
        for name, of in used.items()
        if name in configured
    }
    return Usage(
        cores=facts.engine["NCPU"],
        replicas=len(facts.running(SERVICE)) or facts.stack.wanted,
        workers=int(facts.stack.service(SERVICE)["environment"].get("API_WORKERS", 1)),
        budget=Budget.read(facts.stack),
        services=services,
        **figures,
    )


def _busy_seconds() -> float:
    """Return the processor time that this machine has spent, 0 where that is not told."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0]
    except OSError:
        return 0
    user, nice, system, _idle, _wait, irq, softirq = (int(one) for one in first.split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _bytes(printed: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]+)", printed.strip()).groups()  # type: ignore[union-attr]
    return float(number) * _UNITS[unit]


def _answered(facts: Facts) -> dict[str, float]:
    """Return how many requests all replicas have answered within so many seconds."""
    found: dict[str, float] = defaultdict(float)
    for one in ids(facts.running(SERVICE)):
        try:
            told = docker("exec", one, "python", "-c", _READ_METRICS)
        except DockerError:
            return {}  # an app that counts none
        found["+Inf"] += 0  # one that counts, but has not answered yet, says nothing of it
        for bound, count in _BUCKET.findall(told):
            found[bound] += float(count)
    return found


def quantile(answers: dict[str, float], part: float) -> float | None:
    """Return the seconds within which a part of the answers came, or None without answers."""
    total = answers.get("+Inf", 0)
    below, below_count = 0.0, 0.0
    for bound, count in sorted((float(bound), count) for bound, count in answers.items()):
        if total and count >= part * total:
            inside = (part * total - below_count) / (count - below_count)
            return below if bound == float("inf") else below + inside * (bound - below)
        below, below_count = bound, count
    return None
