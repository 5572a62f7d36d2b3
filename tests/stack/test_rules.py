"""Every figure is defined once and right; every alert fires when it should, and only then."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stack.stack import REPOSITORY, docker, image

RULES = (REPOSITORY / "metrics/prometheus/rules.yml").read_text()

Series = dict[str, str]
HOUR = 60
DAY = 24 * HOUR


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value a minute, and the minute to look at."""

    fires: Series
    quiet: Series
    minute: int = 20


def requests(code: int, per_minute: float, router: str = "api@file") -> Series:
    """Return the series of requests at a steady rate."""
    name = f'traefik_router_requests_total{{router="{router}",code="{code}"}}'
    return {name: f"0+{per_minute}x60"}


def durations(**fast_and_all: int) -> Series:
    """Return a histogram of so many answers a minute below a second, and in all."""
    labels = 'router="api@file",protocol="http"'
    name = "traefik_router_request_duration_seconds_bucket"
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
STARTED = 'process_start_time_seconds{job="traefik"}'
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
        # Whoever it is that answers for want of a replica; not what the page asks while it waits.
        Case(
            fires=requests(503, 60, "none@file"),
            quiet=requests(503, 60, "status@file") | requests(404, 60, "acme-http@internal"),
        ),
        Case(
            fires=requests(503, 20, "none@file") | requests(200, 5000, "status@file"),
            quiet=requests(200, 20) | requests(502, 60, "status@file"),
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
            fires={CHANGED: "30x4 300x60", STARTED: "60x60"},
            quiet={CHANGED: "30x4 300x60", STARTED: "60x4 301x60"},
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
    "JobFailed": [
        Case(
            fires={'berth_job_failed{job_line="0 3 * * * clean"}': "0x9 1x60"},
            quiet={'berth_job_failed{job_line="0 3 * * * clean"}': "1x9 0x60"},
        )
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


@dataclass(frozen=True)
class Figure:
    """Series a value a minute, and what a figure is in the twentieth; no labels, no value: none."""

    series: Series
    name: str
    values: dict[str, float]


ANSWERS = (
    requests(200, 60) | requests(404, 30) | requests(429, 6) | requests(503, 24, "none@file")
    | requests(200, 6000, "status@file") | requests(308, 600, "web-to-websecure@internal")
)  # fmt: skip
VERSIONS = {
    series: f"{value}x60"
    for replica, version, started in ((1, "a", 70), (2, "a", 60), (3, "b", 90))
    for series, value in (
        (f'app_info{{version="{version}",replica="{replica}"}}', 1),
        (f'container_start_time_seconds{{service="api",replica="{replica}"}}', started),
    )
}
MACHINE = {
    f'node_cpu_seconds_total{{cpu="{cpu}",mode="{mode}"}}': f"0+{seconds}x60"
    for cpu in (0, 1)
    for mode, seconds in (("user", 24), ("iowait", 12), ("steal", 6), ("idle", 18))
}

FIGURES = [
    Figure(ANSWERS, "berth:requests:rate", {'code="200"': 1, 'code="404"': 0.5, 'code="429"': 0.1,
                                            'code="503"': 0.4}),
    Figure(ANSWERS, "berth:errors:ratio", {'codes="4xx"': 0.3, 'codes="5xx"': 0.2}),
    Figure(durations(fast=60, all=90), "berth:latency:buckets", {'le="1"': 1, 'le="2.5"': 1.5,
                                                                 'le="+Inf"': 1.5}),
    # A site that nobody asks has no share of errors, and no time that an answer took.
    Figure(requests(200, 0), "berth:errors:ratio", {}),
    Figure(durations(fast=0, all=0), "berth:latency:seconds", {}),
    Figure(
        durations(fast=50, all=100),
        "berth:latency:seconds",
        {'quantile="0.5"': 1, 'quantile="0.9"': 2.2, 'quantile="0.99"': 2.47},
    ),
    Figure(UP | {HEALTHY: "1x60", OTHER: "0x60"}, "berth:replicas:healthy", {"": 1}),
    Figure(UP | {HEALTHY: "1x60", OTHER: "0x60"}, "berth:replicas:count", {"": 2}),
    Figure(UP, "berth:replicas:healthy", {"": 0}),
    Figure({'up{job="containers"}': "0x60"}, "berth:replicas:healthy", {}),
    Figure(VERSIONS, "berth:version:replicas", {'version="a"': 2, 'version="b"': 1}),
    Figure(VERSIONS, "berth:version:start_seconds", {'version="a"': 60, 'version="b"': 90}),
    Figure(
        {'container_cpu_usage_seconds_total{service="api",replica="1"}': "0+30x60"},
        "berth:container_cpu:cores",
        {'replica="1", service="api"': 0.5},
    ),
    Figure(memory(95, 10, 0), "berth:container_memory:bytes", {'replica="1", service="api"': 85}),
    Figure(memory(95, 10, 0), "berth:container_memory:limit_bytes", {}),
    Figure(
        memory(95, 10, 100),
        "berth:container_memory:limit_bytes",
        {'replica="1", service="api"': 100},
    ),
    Figure(MACHINE, "berth:machine_cpu:cores", {"": 0.8}),
    Figure(MACHINE, "berth:machine_cpu:ratio", {"": 0.4}),
    Figure(
        {"node_memory_MemAvailable_bytes": "25x60", "node_memory_MemTotal_bytes": "100x60"},
        "berth:machine_memory:ratio",
        {"": 0.75},
    ),
    Figure(disk("25x60"), "berth:disk:used_ratio", {'device="/dev/sda"': 0.75}),
    Figure(
        disk("25x60"),
        "berth:disk:free_bytes",
        {f'device="/dev/sda", mountpoint="/disks/{one}"': 25 for one in ("backups", "docker")},
    ),
    Figure(
        {'pg_stat_database_numbackends{datname="a"}': "3x60",
         'pg_stat_database_numbackends{datname="b"}': "4x60"},
        "berth:database_connections:used",
        {"": 7},
    ),
    Figure({"pg_settings_max_connections": "97x60"}, "berth:database_connections:limit", {"": 97}),
    Figure(
        {ENDS.format(1): "1800x60", ENDS.format(2): "4800x60"},
        "berth:certificate:seconds_left",
        {'sans="example.org"': 3600},
    ),
    Figure(
        backup(full=2, incremental=10, log=19, proof=15),
        "berth:backup:age_seconds",
        {'kind="full"': 1080, 'kind="incremental"': 600, 'kind="log"': 60, 'kind="base"': 600,
         'kind="proof"': 300},
    ),
]  # fmt: skip


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


def recorded(figure: Figure) -> dict[str, Any]:
    """Return promtool's test that a figure has these values, and no others."""
    samples = [
        {"labels": f"{{{labels}}}", "value": round(value, 6)}
        for labels, value in figure.values.items()
    ]
    expression = f"round({figure.name}, 0.000001)"
    return {
        "name": f"{figure.name} of {figure.series}",
        "interval": "1m",
        "input_series": [{"series": one, "values": v} for one, v in figure.series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "20m", "exp_samples": samples}],
    }


def asked_for(rules: str) -> set[str]:
    """Return the names of the metrics and figures from which rules compute."""
    found = "\n".join(re.findall(r"expr: (.*(?:\n {10}.*)*)", rules))
    return set(re.findall(r"(?<![\w:])[a-z][\w:]*[_:]\w+(?![\w:(])", re.sub('"[^"]*"', "", found)))


def test_each_figure_has_a_case_and_is_defined_in_one_place() -> None:
    """What it is made of stands in its rule: not in alerts, the page, Grafana or a program."""
    figures, alerts = RULES.split("- alert: ", 1)
    assert set(re.findall("- record: (.+)", figures)) == {one.name for one in FIGURES}
    metrics = {name for name in asked_for(figures) if ":" not in name}
    assert len(metrics) > 15
    kinds = {"metrics/page": "*.js", "metrics/grafana": "*.json", "ops": "*.py"}
    files = [path for folder, kind in kinds.items() for path in (REPOSITORY / folder).rglob(kind)]
    assert not [(one, file) for file in files for one in metrics if one in file.read_text()]
    # Whether one container is well is no figure.
    assert metrics & asked_for(alerts) == {"container_healthy"}


def test_figures_are_right_and_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    """By Prometheus's own reading of the rules; each case has no other alert than its own."""
    tests = [recorded(figure) for figure in FIGURES]
    for name, cases in CASES.items():
        for case in cases:
            tests.append(expectation(f"{name} fires", case.fires, case.minute, [name]))
            tests.append(expectation(f"{name} is quiet", case.quiet, case.minute, []))
    # Prometheus itself evaluates all groups every 15 seconds, promtool in any order.
    order = re.findall("  - name: (.+)", RULES)
    whole = {"rule_files": ["/metrics/rules.yml"], "group_eval_order": order, "tests": tests}
    tmp_path.chmod(0o755)
    (tmp_path / "tests.yml").write_text(json.dumps(whole))  # which is YAML too
    docker(
        *(
            "run",
            "--rm",
            f"--volume={REPOSITORY}/metrics/prometheus:/metrics:ro",
            f"--volume={tmp_path}:/tests:ro",
        ),
        *("--entrypoint=promtool", image("prometheus"), "test", "rules", "/tests/tests.yml"),
    )
