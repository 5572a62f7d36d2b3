"""What each container of this Compose project uses: processors, memory, restarts, health.

Control groups give the figures (version 1 or 2, systemd's layout or Docker's own), the five reads
of docker-proxy the names. The metrics are called as in cAdvisor, which would need a lot more
rights. Requests are answered one at a time; containers come and go between two of them.
"""

import http.client
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

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
# Unless it holds an action of the template.
COMMENT = re.compile(r"(^|\s)#(?!.*{{).*")


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


class Files:
    """When Traefik's files last changed, other than in comments and space, while this exporter ran.

    A change that makes no difference Traefik does not take, and that is no failure.
    """

    def __init__(self) -> None:
        self._seen = self._read()
        self.changed = 0.0

    def _read(self) -> list[str]:
        text = "\n".join(file.read_text() for file in sorted(FILES.glob("*")))
        return [said for line in text.splitlines() if (said := COMMENT.sub("", line).rstrip())]

    def look(self) -> float:
        """Return the time of the last change, in seconds since 1970; 0 when there was none."""
        try:
            found = self._read()
        except OSError:
            return self.changed  # it is being written
        if found != self._seen:
            self._seen = found
            self.changed = max(file.stat().st_mtime for file in FILES.glob("*"))
        return self.changed


class Collector:
    """Reads everything anew at each scrape."""

    def __init__(self, kills: Kills) -> None:
        self._kills = kills
        self._files = Files()

    def collect(self) -> Iterable[Metric]:
        """Yield every metric, with the labels `service` and `replica` (the short id)."""
        labels = ["service", "replica"]

        def counter(name: str, text: str) -> CounterMetricFamily:
            return CounterMetricFamily(name, text, labels=labels)

        def gauge(name: str, text: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, text, labels=labels)

        cpu = counter("container_cpu_usage_seconds", "Processor time used")
        working_set = gauge("container_memory_working_set_bytes", "Memory less idle files")
        files = gauge("container_memory_total_active_file_bytes", "The part of it that is files")
        limit = gauge(
            "container_spec_memory_limit_bytes", "Memory at which the kernel kills; 0: none"
        )
        kills = counter("container_oom_events", "Out-of-memory kills since this exporter started")
        started = gauge("container_start_time_seconds", "When it was last started, since 1970")
        restarts = counter("container_restarts", "Restarts by the restart policy")
        healthy = gauge("container_healthy", "1 when running and not failing its health check")
        changed = GaugeMetricFamily(
            "berth_traefik_files_changed_timestamp_seconds",
            "When traefik/dynamic last changed since this exporter started; 0: not",
            value=self._files.look(),
        )
        for found in containers():
            names = [found["Config"]["Labels"][f"{LABEL}.service"], found["Id"][:12]]
            state = found["State"]
            health = state.get("Health", {}).get("Status", "none")
            healthy.add_metric(
                names, state["Status"] == "running" and health in {"healthy", "none"}
            )
            restarts.add_metric(names, found["RestartCount"])
            kills.add_metric(names, self._kills.count[found["Id"]])
            limit.add_metric(names, found["HostConfig"]["Memory"])
            started.add_metric(names, seconds(state["StartedAt"]))
            group = Group(found["Id"])
            if (used := group.cpu_seconds()) is not None:
                cpu.add_metric(names, used)
            if memory := group.memory():
                working_set.add_metric(names, memory[0])
                files.add_metric(names, memory[1])
        return [cpu, working_set, files, limit, kills, started, restarts, healthy, changed]


def seconds(when: str) -> float:
    """Turn Docker's time, with nanoseconds, into seconds since 1970."""
    return datetime.fromisoformat(f"{when[:19]}+00:00").timestamp()


class Handler(WSGIRequestHandler):
    """Drops whoever is slow, and logs nothing."""

    timeout = 5

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def main() -> None:
    """Serve until told to stop."""
    kills = Kills()
    kills.start()
    registry = CollectorRegistry()
    registry.register(Collector(kills))
    server = WSGIServer(("", PORT), Handler)
    server.set_app(make_wsgi_app(registry))
    server.serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main()
