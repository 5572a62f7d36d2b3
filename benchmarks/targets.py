"""What Berth is to reach, beside what it reaches. Nothing fails when it does not."""

from collections.abc import Iterable
from statistics import median

from benchmarks.peers import BERTH, Peer
from benchmarks.results import CPU, HALF, OWN, REST, ROW, START, Figure, Results

START_SECONDS = 6
START_RATIO = 1.5
REST_MIB = 45
OWN_MB = 150
TEMPLATE_RATIO = 4
PEER_RATIO = 1.1
FLOOR_RATIO = 1.35


def lines(results: Results) -> Iterable[str]:
    """Yield a sentence for each target that this run can judge."""
    peers = {peer.name: peer for peer in results.peers}
    if BERTH.name not in peers:
        return
    others = [peer for peer in peers.values() if peer.kind == "peer" and peer is not BERTH]
    for peer in others:
        times = median(1 / ratio for ratio in results.ratios(peer, ROW))
        wanted = TEMPLATE_RATIO if peer.name == "template" else PEER_RATIO
        yield verdict(
            times >= wanted, f"rows: {times:.2f} times {peer.name}'s, wanted {wanted} times"
        )
    for figure in (HALF, OWN):
        for peer in others:
            below = median(1 / ratio for ratio in results.ratios(peer, figure))
            if below == 1:
                continue  # the same image, with another command
            yield verdict(
                below < 1, f"{figure.name}: {below:.2f} of {peer.name}'s, wanted below it"
            )
    for name in ("bare", "bare-fastapi"):
        if name in peers and "memory" in peers:
            times = ours(results, CPU) / _floors(results, peers[name], peers["memory"])
            yield verdict(
                times <= FLOOR_RATIO,
                f"CPU per row: {times:.2f} of {name} and memory together, wanted {FLOOR_RATIO}",
            )
    for figure, limit in ((REST, REST_MIB), (OWN, OWN_MB), (START, START_SECONDS)):
        value = ours(results, figure)
        yield verdict(
            value <= limit, f"{figure.name}: {value:.1f} ({figure.unit}), wanted at most {limit}"
        )
    parts = _parts(results)
    times = ours(results, START) / sum(parts.values())
    named = ", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items())
    yield verdict(
        times <= START_RATIO,
        f"start: {times:.2f} of the sum of its parts ({named} s), wanted {START_RATIO}",
    )


def verdict(good: bool, sentence: str) -> str:
    """Say whether a target is reached."""
    return f"{'reached' if good else 'MISSED '}  {sentence}"


def ours(results: Results, figure: Figure) -> float:
    """Berth's own figure."""
    return results.median(BERTH, figure) or 0.0


def _floors(results: Results, bare: Peer, memory: Peer) -> float:
    return sum(results.median(peer, CPU) or 0.0 for peer in (bare, memory))


def _parts(results: Results) -> dict[str, float]:
    found = [visits[BERTH.name].start_parts for visits in results.rounds if BERTH.name in visits]
    return {name: median(parts[name] for parts in found) for name in found[0]}
