"""What `requires-python` and its like allow, by PEP 440's rules and by Poetry's."""

import re

_CLAUSE = re.compile(r"(~=|===?|!=|>=|<=|>|<|\^|~)?\s*v?(\d+(?:\.\d+)*)(\.\*)?[\w.+-]*")
# Of a version of which only the beginning is named, an image has the newest patch.
_NEWEST = 99


def parse(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (0, 30, 1) of `0.30.1rc2`."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def allows(specification: str, version: tuple[int, ...]) -> bool:
    """Whether `>=3.10,<3.14`, `==3.12.*`, `^3.11 || ~3.13` and their like allow a version.

    Args:
        specification: What stands in pyproject.toml; empty, or `*`, allows all.
        version: Two numbers for the newest patch of a minor version, or three.
    """
    exact = (*version, _NEWEST)[:3]
    return any(
        all(_holds(clause, exact) for clause in _CLAUSE.findall(alternative))
        for alternative in specification.split("||")
    )


def _holds(clause: tuple[str, str, str], version: tuple[int, ...]) -> bool:
    operator, text, wildcard = clause
    bound = parse(text)
    padded = (*bound, 0, 0)[:3]
    match operator:
        case ">=":
            return version >= padded
        case ">":
            return version > padded
        case "<=":
            return version <= padded
        case "<":
            return version < padded
        case "!=":
            return not (_begins(version, bound) if wildcard else version == padded)
        case "~=":
            return version >= padded and _begins(version, bound[:-1])
        case "^":
            return version >= padded and _begins(version, bound[:1])
        case "~":
            return version >= padded and _begins(version, bound[:2])
    return _begins(version, bound)


def _begins(version: tuple[int, ...], with_: tuple[int, ...]) -> bool:
    return version[: len(with_)] == with_
