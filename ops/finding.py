"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """What was found, with the figure, and the way out unless all is well."""

    level: Level
    says: str
    way_out: str = ""


def good(says: str) -> Finding:
    """Find nothing wrong."""
    return Finding(Level.GOOD, says)


def warning(says: str, way_out: str) -> Finding:
    """Find something to look at."""
    return Finding(Level.WARNING, says, way_out)


def bad(says: str, way_out: str) -> Finding:
    """Find what keeps the stack from its work, or soon will."""
    return Finding(Level.BAD, says, way_out)


def worst(found: list[Finding]) -> Finding:
    """Return the worst of findings, or all that is said where each is good."""
    for level in (Level.BAD, Level.WARNING):
        for one in found:
            if one.level is level:
                return one
    return good("; ".join(one.says for one in found))
