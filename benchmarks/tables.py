"""The results, as tables in Markdown."""

from collections.abc import Iterable
from statistics import median

from benchmarks.peers import BERTH
from benchmarks.results import COMPARED, FIGURES, Figure, Results


def figures(results: Results) -> Iterable[str]:
    """Yield a line for each figure, a column for each peer: medians over the rounds."""
    peers = results.peers
    yield "| | " + " | ".join(peer.name for peer in peers) + " |"
    yield "|---|" + "---:|" * len(peers)
    for figure in FIGURES:
        cells = (number(results.median(peer, figure), figure) for peer in peers)
        yield f"| {figure.name}, {figure.unit} | " + " | ".join(cells) + " |"


def ratios(results: Results) -> Iterable[str]:
    """Yield a line for each peer: its figures over Berth's, with their spread over the rounds."""
    yield "| over Berth's | " + " | ".join(figure.name for figure in COMPARED) + " |"
    yield "|---|" + "---:|" * len(COMPARED)
    for peer in results.peers:
        if peer.name != BERTH.name:
            cells = (spread(results.ratios(peer, figure)) for figure in COMPARED)
            yield f"| {peer.title} | " + " | ".join(cells) + " |"


def number(value: float | None, figure: Figure) -> str:
    """Write a figure; a dash where there is none."""
    return "-" if value is None else f"{value:,.{figure.digits}f}"


def spread(ratios: list[float]) -> str:
    """Write the middle of some ratios, and between which they lie."""
    if not ratios:
        return "-"
    if len(ratios) == 1:
        return f"{ratios[0]:.2f}"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
