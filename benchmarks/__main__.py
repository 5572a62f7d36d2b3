"""Measure Berth beside its peers; `make bench` says how to choose.

PEERS names those to measure beside Berth (all of them by default), ROUNDS how often (3), SECONDS
for how long rows are read (4). SCALING=1 measures Berth at several scales, and on fewer cores,
instead.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks import client, plot, project, scaling, tables, targets
from benchmarks.peers import BERTH, PEERS, Peer, berth
from benchmarks.progress import Progress
from benchmarks.project import Project
from benchmarks.results import Results
from benchmarks.visit import Visit, visit
from host import images, stand_in
from host.commands import UserError, say

FOLDER = Path(__file__).parent / "results"
ROUNDS = 3
SECONDS = 4.0
# What else this machine was doing, on average over five minutes.
LOAD_BEFORE = os.getloadavg()[1]


def main() -> int:
    """Measure, print and write.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        seconds = number("SECONDS", SECONDS)
        with project.leaving_nothing():
            rounds = int(number("ROUNDS", ROUNDS))
            if os.environ.get("SCALING"):
                scale(rounds, seconds)
            else:
                compare(chosen(os.environ.get("PEERS", "")), rounds, seconds)
    except UserError as error:
        print(f"berth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nberth: stopped, nothing is left running", file=sys.stderr)
        return 130
    return 0


def compare(peers: list[Peer], rounds: int, seconds: float) -> None:
    """Visit the peers in turn, round by round: what changes meanwhile meets them all."""
    prepare(peers)
    results = Results()
    failures: list[str] = []
    progress = Progress(rounds * len(peers))
    for current in range(1, rounds + 1):
        for peer in peers:
            progress.next(peer.name)
            try:
                results.add(current, visit(peer, seconds, progress.say))
            except UserError as error:
                failures.append(f"{peer.name}, round {current}: {error}")
    progress.end()
    report(results, "full" if peers == PEERS and rounds >= ROUNDS else "partial")
    if failures:
        raise UserError("not everything could be measured:\n  " + "\n  ".join(failures))


def report(results: Results, name: str) -> None:
    """Write and print what was measured, if there is Berth to compare with."""
    if BERTH not in results.peers:
        return
    write(
        f"{name}.json", as_json([asdict(v) for visits in results.rounds for v in visits.values()])
    )
    write(f"{name}.svg", plot.svg(results))
    show(tables.figures(results))
    show(tables.ratios(results))
    show(targets.lines(results))
    show(scaling.estimate(results.split(BERTH)))


def scale(rounds: int, seconds: float) -> None:
    """Measure Berth with more and more replicas, and on fewer cores."""
    prepare([BERTH])
    progress = Progress(rounds * len(scaling.ARRANGEMENTS))
    found: dict[scaling.Arrangement, list[Visit]] = {kind: [] for kind in scaling.ARRANGEMENTS}
    for _ in range(rounds):
        for kind, visits in found.items():
            progress.next(f"{kind.replicas} replicas on {kind.cores} cores")
            peer = berth(kind.replicas)
            visits.append(visit(peer, seconds, progress.say, rows_only=True, cpus=kind.cpus))
    progress.end()
    measured = [{**asdict(kind), "visits": [asdict(v) for v in found[kind]]} for kind in found]
    write("scaling.json", as_json(measured))
    middle = {kind: scaling.middle(visits) for kind, visits in found.items()}
    show(scaling.table(middle))
    show(scaling.estimate(middle[scaling.USUAL].cpu_us))


def prepare(peers: list[Peer]) -> None:
    """Make the images, and the data that all will serve."""
    say("building the images")
    images.ensure([stand_in.BASE])
    client.build()
    for peer in [BERTH, *peers]:  # Berth's own first: others start from it
        Project(peer).compose("build", "--quiet")
    say("making the data")
    first = Project(BERTH)
    try:
        first.up()
        first.seed()
    finally:
        first.stop()


def chosen(names: str) -> list[Peer]:
    """Return Berth and the named peers, or all.

    Raises:
        UserError: There is no peer of a name.
    """
    wanted = names.replace(",", " ").split()
    unknown = set(wanted) - {peer.name for peer in PEERS}
    if unknown:
        known = ", ".join(peer.name for peer in PEERS)
        raise UserError(f"PEERS={names}: there is no {unknown.pop()}; there are {known}")
    return [peer for peer in PEERS if not wanted or peer is BERTH or peer.name in wanted]


def number(variable: str, default: float) -> float:
    """Return a variable's value.

    Raises:
        UserError: It is no number above 0.
    """
    given = os.environ.get(variable) or str(default)
    try:
        value = float(given)
    except ValueError:
        value = 0
    if value < 1:
        raise UserError(f"{variable}={given}: give a number, 1 or more")
    return value


def as_json(measured: object) -> str:
    """Return what was measured, with when and on what."""
    run = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load_before": LOAD_BEFORE,
        "measured": measured,
    }
    return json.dumps(run, indent=1, ensure_ascii=False) + "\n"


def write(name: str, text: str) -> None:
    """Write a result, and say where."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / name).write_text(text)
    say(f"wrote benchmarks/results/{name}")


def show(lines: Iterable[str]) -> None:
    """Print a table, with a blank line before."""
    print()
    for line in lines:
        print(line)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
