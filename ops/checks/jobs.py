"""The jobs: whether the last run of each went well."""

import json
from datetime import UTC, datetime
from typing import Any

from ops.docker import DockerError, docker
from ops.facts import Facts
from ops.finding import Finding, bad, good
from ops.workers import of_the_app

_FILE = "/run/berth/jobs.json"


def jobs(facts: Facts) -> Finding:
    """None has failed the last time."""
    services = facts.stack.configuration["services"]
    names = [one for one in of_the_app(facts.stack) if "JOBS" in services[one]["environment"]]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        (container, *_) = [one.id for one in facts.running(name)] or [""]
        if not container:
            return bad(f"{name} does not run", "`make up`")
        try:
            found |= json.loads(docker("exec", container, "cat", _FILE))["jobs"]
        except (ValueError, KeyError, TypeError):
            raise DockerError(f"{name} does not say how its jobs went") from None
    failed = [f"{_shown(job)} {_how(one)}" for job, one in found.items() if one.get("failure")]
    if failed:
        return bad("; ".join(failed), f"`docker compose logs {names[0]}` says why")
    if not found:
        return good("none by schedule")
    latest = max(float(one.get("started", 0)) for one in found.values())
    since = f", the latest began {_moment(latest)}" if latest else ""
    return good(f"the last run of each of {len(found)} went well{since}")


def _how(one: dict[str, Any]) -> str:
    return f"{_shown(str(one['failure']))}, begun {_moment(float(one.get('started', 0)))}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _shown(text: str) -> str:
    """Return what a replica could have written, fit for a terminal."""
    return ascii(text)[1:-1][:80]
