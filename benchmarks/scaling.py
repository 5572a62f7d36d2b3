"""What more replicas and more cores give: measured here, and worked out for larger machines."""

import os
from collections.abc import Iterable
from math import ceil

from benchmarks.visit import Visit

SCALES = (1, 2, 4, 8)
CORES = (8, 16, 64)
# PostgreSQL's own limit, less what it keeps for its superuser; and what each process may hold.
CONNECTIONS = 97
POOL = 4


def table(visits: dict[int, Visit]) -> Iterable[str]:
    """Yield a line for each scale that was measured."""
    yield (
        "| replicas | rows/s | p99 ms | µs proxy | µs api | µs db | µs rest | cores in use "
        "| start s | of its parts |"
    )
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for scale, visit in visits.items():
        if visit.row:
            cpu = visit.cpu_us
            cores = sum(cpu.values()) * visit.row.requests / visit.row.seconds / 1e6
            yield (
                f"| {scale} | {visit.row.rate:,.0f} | {visit.row.p99_ms:.0f} | {cpu['proxy']:.0f} "
                f"| {cpu['api']:.0f} | {cpu['db']:.0f} | {cpu['rest']:.0f} "
                f"| {cores:.2f} of {os.cpu_count()} | {visit.start_seconds:.1f} "
                f"| {visit.start_seconds / sum(visit.start_parts.values()):.2f} |"
            )


def estimate(cpu_us: dict[str, float]) -> Iterable[str]:
    """Yield, for larger machines, which part is full first.

    A row costs what it costs here, on every core; locks and memory that cores share are left
    out, so this is the most that could be had.
    """
    whole = sum(cpu_us.values())
    yield (
        f"A row read costs {whole:.0f} µs of processor time: {cpu_us['proxy']:.0f} Traefik, "
        f"{cpu_us['api']:.0f} api, {cpu_us['db']:.0f} PostgreSQL."
    )
    yield f"One process of api is full at {1e6 / cpu_us['api']:,.0f} rows/s, as it has one core."
    yield ""
    yield (
        "| cores | rows/s when all are busy | of them Traefik's, api's, db's | processes of api "
        "| threads of Traefik | full first |"
    )
    yield "|---:|---:|---|---:|---:|---|"
    for cores in CORES:
        rate = cores * 1e6 / whole
        shares = [cores * cpu_us[name] / whole for name in ("proxy", "api", "db")]
        threads, processes = ceil(shares[0]), ceil(shares[1])
        limits = {
            "one thread of Traefik": 1e6 / cpu_us["proxy"],
            "four replicas": 4e6 / cpu_us["api"],
        }
        first = [f"{name}, at {limit:,.0f}" for name, limit in limits.items() if limit < rate]
        if processes * POOL > CONNECTIONS:
            most = CONNECTIONS // POOL
            full = most * 1e6 / cpu_us["api"]
            first.append(f"PostgreSQL's connections, at {most} processes and {full:,.0f}")
        split = ", ".join(f"{share:.1f}" for share in shares)
        yield (
            f"| {cores} | {rate:,.0f} | {split} | {processes} | {threads} "
            f"| {'; then '.join([*first, 'the cores'])} |"
        )
