"""Every alert fires when it should and, in a case much like it, does not when it should not."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.stack import REPOSITORY, docker

RULES = (REPOSITORY / "metrics/rules.yml").read_text()

Series = dict[str, str]
HOUR = 60
DAY = 24 * HOUR


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value a minute, and the minute to look at."""

    fires: Series
    quiet: Series
    minute: int = 20


def requests(code: int, per_minute: float) -> Series:
    """Return the series of requests at a steady rate."""
    name = f'traefik_entrypoint_requests_total{{entrypoint="websecure",code="{code}"}}'
    return {name: f"0+{per_minute}x60"}


def durations(**fast_and_all: int) -> Series:
    """Return a histogram of so many answers a minute below a second, and in all."""
    labels = 'entrypoint="websecure",protocol="http"'
    name = "traefik_entrypoint_request_duration_seconds_bucket"
    bounds = {"1": fast_and_all["fast"], "2.5": fast_and_all["all"], "+Inf": fast_and_all["all"]}
    return {f'{name}{{{labels},le="{le}"}}': f"0+{count}x60" for le, count in bounds.items()}


def memory(working_set: int, files: int, limit: int) -> Series:
    """Return what a container of api uses, in MiB."""
    names = (
        "container_memory_working_set_bytes",
        "container_memory_total_active_file_bytes",
        "container_spec_memory_limit_bytes",
    )
    values = (working_set, files, limit)
    return {
        f'{n}{{service="api",replica="1"}}': f"{v}x60" for n, v in zip(names, values, strict=True)
    }


def disk(available: str, size: int = 100) -> Series:
    """Return a disk's free space, in GiB, seen at two mount points."""
    return {
        f'node_filesystem_{what}_bytes{{device="/dev/sda",mountpoint="/disks/{where}"}}': values
        for what, values in (("avail", available), ("size", f"{size}x600"))
        for where in ("docker", "backups")
    }


def backup(**minutes: int) -> Series:
    """Return when things were done, in minutes since the beginning."""
    success = "berth_backup_last_success_timestamp_seconds"
    names = {kind: f'{success}{{kind="{kind}"}}' for kind in ("full", "incremental", "log")}
    names["proof"] = "berth_backup_last_proof_timestamp_seconds"
    return {
        "berth_backup_base_seconds_max": f"{2 * HOUR * 60}x300",
        "berth_backup_proof_seconds_max": f"{2 * HOUR * 60}x300",
    } | {names[what]: f"{minute * 60}x300" for what, minute in minutes.items()}


UP = {'up{job="containers"}': "1x60"}
HEALTHY = 'container_healthy{service="api",replica="1"}'
OTHER = 'container_healthy{service="api",replica="2"}'
RESTARTS = 'container_restarts_total{service="api",replica="1"}'
KILLS = 'container_oom_events_total{service="api",replica="1"}'
CHANGED = "berth_traefik_files_changed_timestamp_seconds"
LOADED = "traefik_config_last_reload_success"
ENDS = 'traefik_tls_certs_not_after{{cn="",sans="example.org",serial="{}"}}'

CASES = {
    "NoReplica": [
        # None healthy, or none at all; but not when nobody can tell.
        Case(fires=UP | {HEALTHY: "0x60"}, quiet=UP | {HEALTHY: "0x60", OTHER: "1x60"}, minute=1),
        Case(fires=UP, quiet={'up{job="containers"}': "0x1"}, minute=1),
    ],
    "ErrorRate": [
        Case(
            fires=requests(200, 980) | requests(503, 20),
            quiet=requests(200, 995) | requests(503, 5) | requests(404, 500),
        ),
        # A few failures of a few requests are no rate yet.
        Case(
            fires=requests(200, 10) | requests(502, 2),
            quiet=requests(200, 10) | requests(502, 1),
        ),
    ],
    "SlowAnswers": [Case(fires=durations(fast=98, all=100), quiet=durations(fast=100, all=100))],
    "CertificateEnds": [
        Case(
            fires={ENDS.format(1): f"{13 * DAY * 60}x60"},
            # The old one stays visible beside the new one.
            quiet={
                ENDS.format(1): f"{13 * DAY * 60}x60",
                ENDS.format(2): f"{15 * DAY * 60}x60",
            },
        )
    ],
    "ConfigurationNotLoaded": [
        Case(
            fires={CHANGED: "0x4 300x60", LOADED: "60x60"},
            quiet={CHANGED: "0x4 300x60", LOADED: "60x4 301x60"},
        )
    ],
    "ContainerDown": [
        Case(
            fires={HEALTHY: "1x9 0x60", OTHER: "1x60"},
            quiet={HEALTHY: "1x9 0x0 1x60", OTHER: "1x60"},
        )
    ],
    "ContainerRestarts": [
        Case(fires={RESTARTS: "0x9 1 2 3x60"}, quiet={RESTARTS: "7x9 8 9x60"}),
    ],
    "OutOfMemory": [Case(fires={KILLS: "0x9 1x60"}, quiet={KILLS: "0 1x60"})],
    "MemoryNearLimit": [
        Case(fires=memory(95, 1, 100), quiet=memory(95, 10, 100)),
        Case(fires=memory(91, 0, 100), quiet=memory(91, 0, 0)),
    ],
    "MachineMemory": [
        Case(
            fires={
                "node_memory_MemAvailable_bytes": "9x60",
                "node_memory_MemTotal_bytes": "100x60",
            },
            quiet={
                "node_memory_MemAvailable_bytes": "11x60",
                "node_memory_MemTotal_bytes": "100x60",
            },
        )
    ],
    "DiskFull": [Case(fires=disk("9x60"), quiet=disk("11x60"))],
    "DiskFills": [
        # A tenth of a GiB in ten minutes fills 49 in under four days; or not, from 95.
        Case(fires=disk("49-0.01x600"), quiet=disk("95-0.01x600"), minute=500),
        Case(fires=disk("49-0.01x600"), quiet=disk("49-0.005x600"), minute=500),
    ],
    "TargetDown": [
        Case(
            fires={'up{job="node",instance="node:9100"}': "1x9 0x60"},
            quiet={'up{job="node",instance="node:9100"}': "1x9 0 1x60"},
        )
    ],
    "AlertsNotDelivered": [
        Case(
            fires={'alertmanager_notifications_failed_total{integration="webhook"}': "0+1x60"},
            quiet={'alertmanager_notifications_failed_total{integration="webhook"}': "5x60"},
        )
    ],
    "DatabaseDown": [Case(fires={"pg_up": "1x9 0x60"}, quiet={"pg_up": "1x9 0 1x60"})],
    "ConnectionsNearLimit": [
        Case(
            fires={
                'pg_stat_database_numbackends{datname="berth"}': "80x60",
                'pg_stat_database_numbackends{datname="postgres"}': "1x60",
                "pg_settings_max_connections": "100x60",
            },
            quiet={
                'pg_stat_database_numbackends{datname="berth"}': "79x60",
                'pg_stat_database_numbackends{datname="postgres"}': "1x60",
                "pg_settings_max_connections": "100x60",
            },
        )
    ],
    "BackupOld": [
        Case(
            fires=backup(full=0, incremental=HOUR, proof=3 * HOUR, log=3 * HOUR + 20),
            quiet=backup(full=0, incremental=2 * HOUR, proof=3 * HOUR, log=3 * HOUR + 20),
            minute=3 * HOUR + 20,
        )
    ],
    "BackupLogOld": [
        Case(fires=backup(full=0, log=3), quiet=backup(full=0, log=11)),
    ],
    "BackupUnproven": [
        Case(
            fires=backup(full=3 * HOUR, proof=HOUR - 20, log=3 * HOUR),
            quiet=backup(full=3 * HOUR, proof=HOUR + 20, log=3 * HOUR),
            minute=3 * HOUR,
        ),
        # Never, in three days; or not yet, in one.
        Case(
            fires=backup(full=0, incremental=2 * HOUR, log=3 * HOUR),
            quiet=backup(full=2 * HOUR, log=3 * HOUR),
            minute=3 * HOUR,
        ),
    ],
}


def expectation(name: str, series: Series, minute: int, firing: list[str]) -> dict[str, Any]:
    """Return promtool's test that of all alerts exactly these fire."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": one, "values": values} for one, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": f'{{alertname="{one}"}}', "value": 1} for one in firing],
            }
        ],
    }


def test_every_alert_has_its_cases_and_says_the_way_out() -> None:
    """One without would be one that nobody has seen fire."""
    alerts = re.split("- alert: ", RULES)[1:]
    assert {alert.split()[0] for alert in alerts} == set(CASES)
    for alert in alerts:
        assert re.search(r"labels: {severity: (critical|warning)}", alert)
        assert re.search(r"annotations:\n +summary: .+\n +description: .+", alert, re.DOTALL)


def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """By Prometheus's own reading of the rules; each case has no other alert than its own."""
    tests = []
    for name, cases in CASES.items():
        for case in cases:
            tests.append(expectation(f"{name} fires", case.fires, case.minute, [name]))
            tests.append(expectation(f"{name} is quiet", case.quiet, case.minute, []))
    tmp_path.chmod(0o755)
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": ["/metrics/rules.yml"], "tests": tests})  # which is YAML too
    )
    docker(
        *(
            "run",
            "--rm",
            f"--volume={REPOSITORY}/metrics:/metrics:ro",
            f"--volume={tmp_path}:/tests:ro",
        ),
        *("--entrypoint=promtool", "prom/prometheus:v3.5.3", "test", "rules", "/tests/tests.yml"),
    )
