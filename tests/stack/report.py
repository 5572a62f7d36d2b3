"""What the events under load cost, kept for the table at the end of the run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.stack.load import Load


@dataclass(frozen=True)
class Row:
    """One event, on one design."""

    event: str
    design: str
    requests: int
    rate: float
    lost_gets: int
    lost_posts: int
    refused: int
    slowest: float
    recovery: float


# Those of the test that runs now.
rows: list[Row] = []


def record(event: str, design: str, load: Load) -> None:
    """Keep what an event cost."""
    failed = [outcome for outcome in load.outcomes if outcome.lost and not outcome.refused]
    rows.append(
        Row(
            event=event,
            design=design,
            requests=len(load.outcomes),
            rate=load.rate,
            lost_gets=sum(outcome.method == "GET" for outcome in failed),
            lost_posts=sum(outcome.method == "POST" for outcome in failed),
            refused=sum(outcome.refused for outcome in load.outcomes),
            slowest=load.slowest,
            recovery=load.recovery,
        )
    )


def table(rows: Sequence[Row]) -> Iterable[str]:
    """Yield the table in Markdown, a line for each event on each design."""
    yield (
        "| event | design | requests | failed GET | failed POST "
        "| 503 with Retry-After | slowest | over after |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    order = list(dict.fromkeys(row.event for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row.event)):
        yield (
            f"| {row.event} | {row.design} | {row.requests} at {row.rate:.0f}/s "
            f"| {row.lost_gets} | {row.lost_posts} | {row.refused} "
            f"| {row.slowest:.2f} s | {row.recovery:.1f} s |"
        )
