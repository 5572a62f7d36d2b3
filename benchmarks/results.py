"""Figures out of visits: medians, and ratios to Berth in the same round."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.client import Result
from benchmarks.peers import BERTH, PEERS, Peer
from benchmarks.visit import Visit

Pick = Callable[[Visit], float | None]


@dataclass(frozen=True)
class Figure:
    """A figure of a visit.

    Attributes:
        name: As a column's heading.
        unit: Of the figure itself.
        pick: Takes it out of a visit; None where there is none.
        digits: After the point.
    """

    name: str
    unit: str
    pick: Pick
    digits: int = 0


def _loaded(kind: str, attribute: str) -> Pick:
    def pick(visit: Visit) -> float | None:
        result: Result | None = getattr(visit, kind)
        return getattr(result, attribute) if result else None

    return pick


def per_process(visit: Visit, memory: float) -> float:
    """What each process of the app holds, shared parts divided."""
    (processes,) = {peer.processes for peer in PEERS if peer.name == visit.peer}
    return memory / processes


def failed(visit: Visit) -> int:
    """Requests that failed, of all loads."""
    loads = (visit.row, visit.page, visit.create, visit.live, visit.half)
    return sum(load.failed for load in loads if load)


ROW = Figure("rows", "/s", _loaded("row", "rate"))
HALF = Figure("p99 at half load", "ms", _loaded("half", "p99_ms"), 1)
CPU = Figure("CPU per row", "µs", lambda visit: sum(visit.cpu_us.values()))
REST = Figure("MiB per process", "at rest", lambda visit: per_process(visit, visit.memory_rest_mib))
LOADED = Figure("MiB", "under load", lambda visit: per_process(visit, visit.memory_load_mib))
OWN = Figure("image", "MB without Python's", lambda visit: visit.image_own_mb)
START = Figure("start", "s", lambda visit: visit.start_seconds, 1)

FIGURES = [
    ROW,
    Figure("p50", "ms", _loaded("row", "p50_ms"), 1),
    Figure("p99", "ms", _loaded("row", "p99_ms"), 1),
    HALF,
    Figure("pages", "/s", _loaded("page", "rate")),
    Figure("writes", "/s", _loaded("create", "rate")),
    Figure("/livez", "/s", _loaded("live", "rate")),
    CPU,
    Figure("proxy", "µs", lambda visit: visit.cpu_us["proxy"]),
    Figure("api", "µs", lambda visit: visit.cpu_us["api"]),
    Figure("db", "µs", lambda visit: visit.cpu_us["db"]),
    REST,
    LOADED,
    Figure("image", "MB", lambda visit: visit.image_mb),
    OWN,
    START,
    Figure("failed", "requests", lambda visit: float(failed(visit))),
]
COMPARED = [ROW, HALF, CPU, REST, OWN, START]


class Results:
    """The visits of a run, round by round."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, Visit]] = []

    def add(self, number: int, visit: Visit) -> None:
        """Add what was measured in a round."""
        while len(self.rounds) < number:
            self.rounds.append({})
        self.rounds[number - 1][visit.peer] = visit

    @property
    def peers(self) -> list[Peer]:
        """Who was measured."""
        return [peer for peer in PEERS if any(peer.name in visits for visits in self.rounds)]

    def median(self, peer: Peer, figure: Figure) -> float | None:
        """The middle one of a peer's figures."""
        found = [figure.pick(visits[peer.name]) for visits in self.rounds if peer.name in visits]
        known = [value for value in found if value is not None]
        return median(known) if known else None

    def split(self, peer: Peer) -> dict[str, float]:
        """The middle one of the processor times per row, in µs, of each kind of container."""
        visits = [visits[peer.name] for visits in self.rounds if peer.name in visits]
        return {part: median(visit.cpu_us[part] for visit in visits) for part in visits[0].cpu_us}

    def ratios(self, peer: Peer, figure: Figure) -> list[float]:
        """A peer's figure over Berth's, for each round that has both."""
        found: list[float] = []
        for visits in self.rounds:
            if peer.name in visits and BERTH.name in visits:
                theirs, ours = figure.pick(visits[peer.name]), figure.pick(visits[BERTH.name])
                if theirs is not None and ours:
                    found.append(theirs / ours)
        return found
