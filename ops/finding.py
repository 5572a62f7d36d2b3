"""What a check has found."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


_MARKS = {Level.GOOD: "✓", Level.WARNING: "!", Level.BAD: "✗"}


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


def line(check: str, finding: Finding) -> str:
    """Return a finding as the operator reads it."""
    way_out = f"\n              → {finding.way_out}" if finding.way_out else ""
    return f"{_MARKS[finding.level]} {check:<11} {finding.says}{way_out}"


def show(found: Mapping[str, Finding], *, as_json: bool) -> int:
    """Print what was found; return the exit code, 1 if any of it is bad."""
    if as_json:
        listed = [{"check": check, **asdict(one)} for check, one in found.items()]
        print(json.dumps(listed, indent=2))
    else:
        print("\n".join(line(check, one) for check, one in found.items()))
    return int(any(one.level is Level.BAD for one in found.values()))
