"""What each container of this Compose project uses: processors, memory, restarts, health.

Control groups give the figures (version 1 or 2, systemd's layout or Docker's own), the five reads
of docker-proxy the names. The metrics are called as in cAdvisor, which would need a lot more
rights. Requests are answered one at a time; containers come and go between two of them. Python's
own library does it all: nothing that the app depends on gets to see what Docker says.
"""

import http.client
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

PORT = 9101
PROXY = os.environ.get("DOCKER_PROXY", "docker-proxy:2375")
PROJECT = os.environ["PROJECT"]
FILES = Path("/dynamic")
GROUPS = Path(os.environ.get("CGROUPS", "/cgroup"))
# Where engines put a container's group: version 2 has one tree, version 1 one for each resource.
LAYOUTS = (
    "system.slice/docker-{id}.scope",
    "docker/{id}",
    "user.slice/user-*.slice/user@*.service/user.slice/docker-{id}.scope",
)
TREES = {"memory": ("", "memory"), "cpu": ("", "cpuacct", "cpu,cpuacct", "cpu")}
LABEL = "com.docker.compose"


def ask(path: str, *, seconds: float | None = 5) -> http.client.HTTPResponse:
    """GET a path of Docker's interface.

    Raises:
        OSError: It cannot be reached, or answers with anything but 200.
    """
    connection = http.client.HTTPConnection(PROXY, timeout=seconds)
    connection.request("GET", path)
    answer = connection.getresponse()
    if answer.status != http.client.OK:
        raise OSError(f"docker-proxy answers {answer.status} to {path}")
    return answer


def filters(**chosen: list[str]) -> str:
    """Return the query that chooses by Docker's filters, of this project in any case."""
    return "filters=" + quote(json.dumps({"label": [f"{LABEL}.project={PROJECT}"], **chosen}))


def containers() -> Iterator[dict[str, Any]]:
    """Yield what Docker knows of each container that is to stay up, running or not."""
    for listed in json.load(ask(f"/containers/json?all=1&{filters()}")):
        try:
            found = json.load(ask(f"/containers/{listed['Id']}/json"))
        except OSError:
            continue  # gone since
        one_off = found["Config"]["Labels"].get(f"{LABEL}.oneoff") == "True"
        if not one_off and found["HostConfig"]["RestartPolicy"]["Name"] not in {"", "no"}:
            yield found


class Kills(threading.Thread):
    """Counts out-of-memory kills: a container that dies of one takes its own count with it."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="kills")
        self.count: Counter[str] = Counter()
        self._since = time.time()

    def run(self) -> None:
        """Listen to Docker's events, again whenever they end."""
        while True:
            try:
                self._listen()
            except (OSError, http.client.HTTPException, ValueError) as error:
                print(f"no events of Docker: {error}", file=sys.stderr, flush=True)
            time.sleep(1)

    def _listen(self) -> None:
        query = f"since={self._since:.9f}&{filters(type=['container'], event=['oom'])}"
        for line in ask(f"/events?{query}", seconds=None):
            event = json.loads(line)
            self.count[event["Actor"]["ID"]] += 1
            self._since = (event["timeNano"] + 1) / 1e9


class Group:
    """A container's control group."""

    def __init__(self, container: str) -> None:
        self._container = container

    def _read(self, tree: str, name: str) -> str | None:
        for top in TREES[tree]:
            for layout in LAYOUTS:
                for file in (GROUPS / top).glob(f"{layout.format(id=self._container)}/{name}"):
                    try:
                        return file.read_text()
                    except OSError:
                        return None  # gone since
        return None

    def _fields(self, tree: str, name: str) -> dict[str, int]:
        lines = (self._read(tree, name) or "").splitlines()
        return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}

    def cpu_seconds(self) -> float | None:
        """Processor time used, in seconds; None when there is no such group."""
        fields = self._fields("cpu", "cpu.stat")
        if "usage_usec" in fields:
            return fields["usage_usec"] / 1e6
        used = self._read("cpu", "cpuacct.usage")
        return int(used) / 1e9 if used else None

    def memory(self) -> tuple[int, int] | None:
        """The working set and the part of it that are files, in bytes; None without a group."""
        used = self._read("memory", "memory.current") or self._read(
            "memory", "memory.usage_in_bytes"
        )
        if used is None:
            return None
        fields = self._fields("memory", "memory.stat")
        prefix = "total_" if "total_inactive_file" in fields else ""
        inactive, active = (
            fields.get(f"{prefix}{kind}_file", 0) for kind in ("inactive", "active")
        )
        return max(0, int(used) - inactive), active


class Exposition:
    """Metrics as Prometheus reads them."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def declare(self, name: str, text: str) -> None:
        """Give a metric; it is a counter if its name says so."""
        kind = "counter" if name.endswith("_total") else "gauge"
        self._lines[name] = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]

    def add(self, name: str, value: float, **labels: str) -> None:
        """Give a value to one that was declared; no label needs escaping."""
        pairs = ",".join(f'{key}="{label}"' for key, label in labels.items())
        self._lines[name].append(f"{name}{{{pairs}}} {float(value)!r}")

    def text(self) -> str:
        """Return all of it."""
        return "".join(f"{line}\n" for lines in self._lines.values() for line in lines)


CPU = "container_cpu_usage_seconds_total"
WORKING_SET = "container_memory_working_set_bytes"
ACTIVE_FILES = "container_memory_total_active_file_bytes"
LIMIT = "container_spec_memory_limit_bytes"
KILLS = "container_oom_events_total"
STARTED = "container_start_time_seconds"
RESTARTS = "container_restarts_total"
HEALTHY = "container_healthy"
CHANGED = "berth_traefik_files_changed_timestamp_seconds"
METRICS = {
    CPU: "Processor time used",
    WORKING_SET: "Memory less idle files",
    ACTIVE_FILES: "The part of it that is files",
    LIMIT: "Memory at which the kernel kills; 0: none",
    KILLS: "Out-of-memory kills since this exporter started",
    STARTED: "When it was last started, since 1970",
    RESTARTS: "Restarts by the restart policy",
    HEALTHY: "1 when running and not failing its health check",
    CHANGED: "When traefik/dynamic last changed, since 1970",
}


class Collector:
    """Reads everything anew at each scrape."""

    def __init__(self, kills: Kills) -> None:
        self._kills = kills

    def collect(self) -> str:
        """Return every metric, with the labels `service` and `replica` (the short id)."""
        metrics = Exposition()
        for name, text in METRICS.items():
            metrics.declare(name, text)
        metrics.add(CHANGED, max((one.stat().st_ctime for one in FILES.glob("*")), default=0))
        for found in containers():
            names = {
                "service": found["Config"]["Labels"][f"{LABEL}.service"],
                "replica": found["Id"][:12],
            }
            state = found["State"]
            health = state.get("Health", {}).get("Status", "none")
            is_healthy = state["Status"] == "running" and health in {"healthy", "none"}
            metrics.add(HEALTHY, is_healthy, **names)
            metrics.add(RESTARTS, found["RestartCount"], **names)
            metrics.add(KILLS, self._kills.count[found["Id"]], **names)
            metrics.add(LIMIT, found["HostConfig"]["Memory"], **names)
            metrics.add(STARTED, seconds(state["StartedAt"]), **names)
            group = Group(found["Id"])
            if (used := group.cpu_seconds()) is not None:
                metrics.add(CPU, used, **names)
            if memory := group.memory():
                metrics.add(WORKING_SET, memory[0], **names)
                metrics.add(ACTIVE_FILES, memory[1], **names)
        return metrics.text()


def seconds(when: str) -> float:
    """Turn Docker's time, with nanoseconds, into seconds since 1970."""
    return datetime.fromisoformat(f"{when[:19]}+00:00").timestamp()


class Handler(BaseHTTPRequestHandler):
    """Answers Prometheus; drops whoever is slow, and logs nothing."""

    timeout = 5
    collector: Collector

    def do_GET(self) -> None:
        """Give the metrics."""
        try:
            body = self.collector.collect().encode()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.send_error(http.HTTPStatus.BAD_GATEWAY, str(error))
            return
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def main() -> None:
    """Serve until told to stop."""
    kills = Kills()
    kills.start()
    Handler.collector = Collector(kills)
    HTTPServer(("", PORT), Handler).serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main()
