"""What more replicas and more cores give: measured here, and worked out for larger machines."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

from benchmarks.peers import CORES
from benchmarks.visit import Cpus, Visit

SCALES = (1, 2, 4, 8)
MEASURED_CORES = (1, 2)
LARGER = (8, 16, 64)
# PostgreSQL's own limit, less what it keeps for its superuser; and what each process may hold.
CONNECTIONS = 97
POOL = 4


@dataclass(frozen=True)
class Arrangement:
    """Where the stack and its load run.

    Attributes:
        replicas: Of api.
        cores: How many the whole stack may use.
        is_apart: Whether the load is on the other cores, and not on the same.
    """

    replicas: int
    cores: int = CORES
    is_apart: bool = False

    @property
    def cpus(self) -> Cpus:
        """The cores of both, as Docker writes them."""
        stack = f"0-{self.cores - 1}"
        return Cpus(stack, f"{self.cores}-{CORES - 1}" if self.is_apart else stack)


USUAL = Arrangement(CORES)
# Those that this machine has the cores for.
ARRANGEMENTS = list(
    dict.fromkeys(
        [Arrangement(replicas) for replicas in SCALES]
        + [
            Arrangement(cores, cores, is_apart)
            for cores in MEASURED_CORES
            for is_apart in (True, False)
            if cores + is_apart <= CORES
        ]
        + [USUAL]
    )
)


def middle(visits: list[Visit]) -> Visit:
    """Return the visit whose rows per second are the middle of all."""
    return sorted(visits, key=lambda visit: visit.row.rate if visit.row else 0)[len(visits) // 2]


def table(visits: Mapping[Arrangement, Visit]) -> Iterable[str]:
    """Yield a line for each arrangement: what was measured, beside what the usual one's costs say.

    A load on the stack's cores takes its share of them.
    """
    usual = visits[USUAL]
    yield (
        "| cores | the load | replicas | rows/s | estimate | of it | p99 ms | µs proxy | µs api "
        "| µs db | µs load | cores in use | start s | of its parts |"
    )
    yield "|---:|---|" + "---:|" * 12
    for kind, visit in visits.items():
        if visit.row:
            cpu = visit.cpu_us
            used = sum(cpu.values()) * visit.row.requests / visit.row.seconds / 1e6
            per_row = sum(usual.cpu_us.values()) + usual.load_us * (not kind.is_apart)
            rate = min(kind.cores / per_row, kind.replicas / usual.cpu_us["api"]) * 1e6
            yield (
                f"| {kind.cores} | {'outside' if kind.is_apart else 'on them'} | {kind.replicas} "
                f"| {visit.row.rate:,.0f} | {rate:,.0f} | {visit.row.rate / rate:.2f} "
                f"| {visit.row.p99_ms:.0f} | {cpu['proxy']:.0f} "
                f"| {cpu['api']:.0f} | {cpu['db']:.0f} | {visit.load_us:.0f} | {used:.2f} "
                f"| {visit.start_seconds:.1f} "
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
    for cores in LARGER:
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
