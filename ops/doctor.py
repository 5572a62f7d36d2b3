"""`make doctor`: one line per check, and the way out of what is wrong; `--json` for programs.

The exit code is 1 when anything is bad, otherwise 0: warnings leave it at 0.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from host.commands import UserError
from ops import docker
from ops.checks import data, jobs, machine, network, service
from ops.facts import Facts
from ops.finding import Finding, bad, show, warning

Check = Callable[[Facts], Finding]

GOING_LIVE: dict[str, Check] = {
    "docker": machine.versions,
    "images": machine.stand_ins,
    "engine": machine.live_restore,
    "logs": machine.logs,
    "memory": machine.memory,
    "disk": machine.disk,
    "clock": machine.clock,
    "address": network.address,
    "dns": network.dns,
    "ports": network.ports,
    "authority": network.authority,
}
RUNNING: dict[str, Check] = {
    "start": service.one_shots,
    "services": service.services,
    "replicas": service.replicas,
    "answers": service.answers,
    "restarts": service.restarts,
    "version": service.rollout,
    "settings": service.settings,
    "certificate": network.certificate,
    "maintenance": service.visitors,
    "jobs": jobs.jobs,
    "migrations": data.migrations,
    "database": data.database,
    "queries": data.queries,
    "backups": data.backups,
    "volumes": data.volumes,
}

_SECONDS = 8


def examine() -> dict[str, Finding]:
    """Look at everything: at the machine always, at the stack if it was ever started."""
    docker.patience = _SECONDS
    try:
        facts = Facts.read()
    except docker.DockerError as error:
        return {"docker": bad(str(error), "`make up`")}
    except UserError as error:
        return {"settings": bad(str(error), "correct it in .env")}
    checks = GOING_LIVE | (RUNNING if facts.containers else {"start": service.never_started})
    return carry_out(checks, facts)


def carry_out(checks: Mapping[str, Check], facts: Facts) -> dict[str, Finding]:
    """Carry out checks side by side; one that fails has found that, too."""
    with ThreadPoolExecutor(max_workers=8) as threads:
        found = threads.map(lambda check: _carry_out(check, facts), checks.values())
        return dict(zip(checks, found, strict=True))


def _carry_out(check: Check, facts: Facts) -> Finding:
    try:
        return check(facts)
    except UserError as error:
        return bad(str(error), "")
    except Exception as error:  # noqa: BLE001 - the others are worth seeing all the same
        return warning(f"not examined: {type(error).__name__}: {error}", "an error of the doctor's")


def main() -> int:
    """Examine this machine and the stack.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python3 -m ops.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a list of findings")
    as_json = parser.parse_args().json
    return show(examine(), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
