"""The example is an app like any other: it can be taken out of here, its own tests with it."""

import ast
from pathlib import Path

from tests.berth.postgres import ROOT, image


def imported(folder: str) -> set[str]:
    """Return the packages of this repository that the programs in a folder import."""
    names: set[str] = set()
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    own = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"_berth"}
    return {".".join(name.split(".")[:2]) for name in names if name.split(".")[0] in own}


def test_the_example_and_berth_know_nothing_of_each_other() -> None:
    """Nor do the example's own tests know of Berth's."""
    assert {name.split(".")[0] for name in imported("app") | imported("migrations")} == {"app"}
    assert {name for name in imported("tests/app") if name.split(".")[0] != "app"} == {"tests.app"}
    for folder in ("berth", "image", "ops", "host"):
        assert "app" not in {name.split(".")[0] for name in imported(folder)}


def test_the_examples_own_tests_run_on_the_stacks_database() -> None:
    """They have it written down, since they know nothing of compose.yaml."""
    assert f'"{image()}"' in Path(ROOT, "tests/app/conftest.py").read_text()
