"""What Berth is to reach, beside what it reaches. Nothing fails when it does not."""

from collections.abc import Iterable, Mapping
from statistics import median

from benchmarks.peers import BERTH, Peer
from benchmarks.results import CPU, HALF, LOADED, OWN, REST, ROW, START, Figure, Results
from benchmarks.tables import number

START_SECONDS = 6
START_RATIO = 1.5
MIB = 50
OWN_MB = 150
FLOOR_RATIO = 1.5
# Of each peer's, at least so many rows and at most such a p99.
ROWS = {"template": 4, "nginx-gunicorn": 0.8, "caddy-uvicorn": 1.15}
TAILS = {"template": 1, "nginx-gunicorn": 2, "caddy-uvicorn": 1}
# Nobody can be below these: the app without a proxy, and the proxy without an app.
FLOORS = ("bare", "bare-fastapi", "memory")


def lines(results: Results) -> Iterable[str]:
    """Yield a sentence for each target that this run can judge, then what the floors have."""
    peers = {peer.name: peer for peer in results.peers}
    if BERTH.name in peers:
        yield from _beside_peers(results, peers)
        yield from _above_floors(results, peers)
        yield from _alone(results)
        for figure in (ROW, HALF, CPU, LOADED):
            found = {name: results.median(peers[name], figure) for name in FLOORS if name in peers}
            if found:
                listed = ", ".join(
                    f"{name} {number(value, figure)}" for name, value in found.items()
                )
                yield f"floors   {figure.name} ({figure.unit}): {listed}"


def _beside_peers(results: Results, peers: Mapping[str, Peer]) -> Iterable[str]:
    for figure, limits in ((ROW, ROWS), (HALF, TAILS)):
        for name, limit in limits.items():
            if name in peers:
                times = _times(results, peers[name], figure)
                good = times >= limit if figure is ROW else times <= limit
                wanted = f"at {'least' if figure is ROW else 'most'} {limit}"
                yield verdict(good, f"{figure.name}: {times:.2f} of {name}'s, wanted {wanted}")
    for peer in peers.values():
        if peer.kind == "peer" and peer is not BERTH:
            below = _times(results, peer, OWN)
            if below != 1:  # else it is the same image, with another command
                said = f"{OWN.name}: {below:.2f} of {peer.name}'s, wanted below it"
                yield verdict(below < 1, said)


def _above_floors(results: Results, peers: Mapping[str, Peer]) -> Iterable[str]:
    for name in ("bare", "bare-fastapi"):
        if name in peers and "memory" in peers:
            floors = (results.median(peers[one], CPU) or 0.0 for one in (name, "memory"))
            times = ours(results, CPU) / sum(floors)
            said = f"{CPU.name}: {times:.2f} of {name} and memory together"
            yield verdict(times <= FLOOR_RATIO, f"{said}, wanted at most {FLOOR_RATIO}")


def _alone(results: Results) -> Iterable[str]:
    for figure, most in ((REST, MIB), (LOADED, MIB), (OWN, OWN_MB), (START, START_SECONDS)):
        value = ours(results, figure)
        said = f"{figure.name}: {value:.1f} ({figure.unit}), wanted at most {most}"
        yield verdict(value <= most, said)
    parts = _parts(results)
    times = ours(results, START) / sum(parts.values())
    named = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    said = f"start: {times:.2f} of the sum of its parts ({named} s), wanted at most {START_RATIO}"
    yield verdict(times <= START_RATIO, said)


def verdict(good: bool, sentence: str) -> str:
    """Say whether a target is reached."""
    return f"{'reached' if good else 'MISSED '}  {sentence}"


def ours(results: Results, figure: Figure) -> float:
    """Berth's own figure."""
    return results.median(BERTH, figure) or 0.0


def _times(results: Results, peer: Peer, figure: Figure) -> float:
    """Berth's figure over a peer's: the middle of the rounds."""
    return median(1 / ratio for ratio in results.ratios(peer, figure))


def _parts(results: Results) -> dict[str, float]:
    found = [visits[BERTH.name].start_parts for visits in results.rounds if BERTH.name in visits]
    return {name: median(parts[name] for parts in found) for name in found[0]}
