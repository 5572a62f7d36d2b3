"""What the events under load cost, kept for the table at the end of the run."""

from dataclasses import dataclass

from tests.stack.load import Load


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    event: str
    requests: int
    rate: float
    lost_gets: int
    lost_posts: int
    refused: int
    slowest: float
    recovery: float


rows: list[Row] = []


def record(event: str, load: Load) -> None:
    """Keep what an event cost."""
    lost = {method: [o for o in load.lost(method) if not o.refused] for method in ("GET", "POST")}
    rows.append(
        Row(
            event=event,
            requests=len(load.outcomes),
            rate=load.rate,
            lost_gets=len(lost["GET"]),
            lost_posts=len(lost["POST"]),
            refused=sum(o.refused for o in load.outcomes),
            slowest=load.slowest,
            recovery=load.recovery,
        )
    )


def table() -> list[str]:
    """Return the table in Markdown."""
    lines = [
        "| event | requests | per second | failed GET | failed POST | refused (503) | slowest | over |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.event} | {row.requests} | {row.rate:.0f} | {row.lost_gets} | {row.lost_posts} "
        f"| {row.refused} | {row.slowest:.2f} s | {row.recovery:.1f} s |"
        for row in rows
    ]
    return lines
