"""`make doctor`: one line per check, and the way out of what is wrong; `--json` for programs."""

import argparse
import json
import sys
from dataclasses import asdict

from ops.checks import Finding, Level, findings

_MARKS = {Level.GOOD: "✓", Level.WARNING: "!", Level.BAD: "✗"}


def line(finding: Finding) -> str:
    """Return a finding as the operator reads it."""
    way_out = f"\n              → {finding.way_out}" if finding.way_out else ""
    return f"{_MARKS[finding.level]} {finding.check:<11} {finding.says}{way_out}"


def main() -> int:
    """Examine the stack.

    Returns:
        The exit code: 1 when anything is bad.
    """
    parser = argparse.ArgumentParser(prog="python3 -m ops.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a list of findings")
    found = findings()
    if parser.parse_args().json:
        print(json.dumps([asdict(one) for one in found], indent=2))
    else:
        print("\n".join(line(one) for one in found))
    return int(any(one.level is Level.BAD for one in found))


if __name__ == "__main__":
    sys.exit(main())
