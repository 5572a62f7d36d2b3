"""Prometheus of the metrics profile, asked inside the stack: no port of it leads out."""

import json
from dataclasses import dataclass

from ops.docker import compose
from ops.stack import Stack

SERVICE = "prometheus"
_PREFIX = "--web.route-prefix="


@dataclass(frozen=True)
class Sample:
    """A value of a vector."""

    labels: dict[str, str]
    value: float


def query(stack: Stack, expression: str) -> list[Sample]:
    """Return the vector that an expression in PromQL yields now.

    Raises:
        DockerError: Prometheus does not run, or does not accept it.
    """
    command = stack.service(SERVICE).get("command") or []
    prefixes = [one.removeprefix(_PREFIX) for one in command if one.startswith(_PREFIX)]
    url = f"http://localhost:9090{prefixes[0] if prefixes else '/'}"
    told = compose(
        *("exec", "--no-TTY", SERVICE, "promtool", "query", "instant", "--format=json"),
        *(url, expression),
    )
    return [Sample(one["metric"], float(one["value"][1])) for one in json.loads(told)]
