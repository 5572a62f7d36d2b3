"""Who may import whom on the host."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(file: Path) -> set[str]:
    """Return the modules that a file imports, and what it imports from packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_no_command_imports_another() -> None:
    """What two of them need is a module of its own, which is called for what it is."""
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"-m (ops\.\w+)", makefile))
    assert len(commands) > 10
    for file in (ROOT / "ops").rglob("*.py"):
        assert not commands & imported(file), file


def test_operators_programs_know_neither_the_example_nor_the_server() -> None:
    """They are for any app, and run where nothing is installed."""
    for file in (ROOT / "ops").rglob("*.py"):
        packages = {name.partition(".")[0] for name in imported(file)}
        assert not packages & {"app", "berth", "migrations"}, file
