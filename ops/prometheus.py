"""Prometheus of the metrics profile, asked inside the stack: no port of it leads out."""

import json
import math
from dataclasses import dataclass
from urllib.parse import urlsplit

from ops.docker import docker
from ops.facts import Facts

SERVICE = "prometheus"


@dataclass(frozen=True)
class Sample:
    """A value of a vector."""

    labels: dict[str, str]
    value: float


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    container: str
    url: str

    @classmethod
    def find(cls, facts: Facts) -> "Prometheus | None":
        """Return the stack's, if its profile is on and it runs."""
        service = facts.stack.configuration["services"].get(SERVICE)
        found = facts.running(SERVICE)
        if not service or not found:
            return None
        options = dict(one.partition("=")[::2] for one in service["command"])
        path = urlsplit(options.get("--web.external-url", "")).path
        return cls(found[0].id, f"http://localhost:9090{path}")

    def query(self, expression: str) -> list[Sample]:
        """Return the vector that an expression in PromQL yields now, less what is no number.

        Raises:
            DockerError: It does not answer, or does not accept the expression.
        """
        command = ("promtool", "query", "instant", "--format=json", self.url, expression)
        told = json.loads(docker("exec", self.container, *command))
        found = (Sample(one["metric"], float(one["value"][1])) for one in told)
        return [one for one in found if not math.isnan(one.value)]
