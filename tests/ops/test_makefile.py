"""What is given to make as NAME=value reaches programs as it is."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"
HOSTILE = """$(shell touch shell) `touch ticks` $$(touch dollars) $HOME "; touch quote; # 'é' \\"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile among programs that write down what they are called with."""
    shutil.copy(MAKEFILE, tmp_path)
    program = (
        f"#!{sys.executable} -S\nimport json, os, sys\n"
        f"with open('{tmp_path}/called', 'a') as file:\n"
        "    print(json.dumps([sys.argv[1:], dict(os.environ)]), file=file)\n"
    )
    for name in ("bin/docker", "bin/python3", ".venv/bin/pytest"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(program)
        file.chmod(0o755)
    return tmp_path


def called(folder: Path, target: str, variable: str) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments and the environment of the last program that a target runs."""
    subprocess.run(
        ["make", "--silent", target, f"{variable}={HOSTILE}"],
        cwd=folder,
        env={"PATH": f"{folder}/bin:{os.environ['PATH']}"},
        check=True,
    )
    kept = {"Makefile", "called", "bin", ".venv"}
    assert {file.name for file in folder.iterdir()} == kept, "something of it was run"
    arguments, environment = json.loads((folder / "called").read_text().splitlines()[-1])
    return arguments, environment


def test_message_of_a_revision_is_text(folder: Path) -> None:
    """Neither make nor the shell looks into it."""
    arguments, _ = called(folder, "revision", "MESSAGE")
    assert arguments[-2:] == ["--message", HOSTILE]


def test_command_to_run_is_read_by_the_shell_in_the_container(folder: Path) -> None:
    """As it stands, quotes and all; none here looks into it."""
    arguments, _ = called(folder, "run", "CMD")
    assert arguments[-4:] == ["_berth.run", "sh", "-c", HOSTILE]


def test_shell_is_one_in_a_container(folder: Path) -> None:
    """Whatever else is given."""
    arguments, _ = called(folder, "shell", "CMD")
    assert arguments[-2:] == ["_berth.run", "bash"]


@pytest.mark.parametrize("variable", ["SERVICE", "SINCE"])
def test_whose_logs_and_since_when_is_text(folder: Path, variable: str) -> None:
    """One argument each; a service is not taken for an option."""
    arguments, _ = called(folder, "logs", variable)
    given = {
        "SERVICE": ["--since=10m", "--", HOSTILE],
        "SINCE": [f"--since={HOSTILE}", "--"],
    }
    assert arguments == ["compose", "logs", "--follow", *given[variable]]


@pytest.mark.parametrize("target", ["dev", "revision"])
def test_development_reads_the_files_that_its_program_names(folder: Path, target: str) -> None:
    """They are the user's own, and compose.dev.yaml."""
    with (folder / "bin/python3").open("a") as program:
        program.write("print('of-the-users-own.yaml:compose.dev.yaml')\n")
    _, environment = called(folder, target, "MESSAGE")
    assert environment["COMPOSE_FILE"] == "of-the-users-own.yaml:compose.dev.yaml"
    programs = [json.loads(line)[0] for line in (folder / "called").read_text().splitlines()]
    assert ["-m", "ops.dev", "files"] in programs


@pytest.mark.parametrize(
    ("target", "variable"),
    [
        ("deploy", "IMAGE"),
        ("image", "PUSH"),
        ("rollback", "TO"),
        ("restore", "TO"),
        ("bench", "PEERS"),
        ("up", "DOMAIN"),
        ("psql", "SQL"),
        ("new", "DIR"),
        ("import", "FILE"),
        ("setup", "HOST"),
    ],
)
def test_other_variables_are_text_as_well(folder: Path, target: str, variable: str) -> None:
    """Their programs find them in the environment."""
    _, environment = called(folder, target, variable)
    assert environment[variable] == HOSTILE


def test_tests_to_run_are_arguments_of_pytest_alone(folder: Path) -> None:
    """Which splits them at blanks, and knows quotes."""
    arguments, environment = called(folder, "test", "TESTS")
    assert arguments == []
    assert environment["PYTEST_ADDOPTS"].strip() == HOSTILE


def test_development_has_metrics(folder: Path) -> None:
    """By their profile: Compose before 5 lets no other file change services that are included."""
    arguments, environment = called(folder, "dev", "API_REPLICAS")
    assert (arguments, environment["COMPOSE_PROFILES"]) == (["-m", "ops.dev"], "metrics")
    root = MAKEFILE.parent
    included = re.findall(r"(?m)^  ([\w-]+):$", (root / "metrics/compose.yaml").read_text())
    assert len(included) >= 5
    for over in (root / "compose.dev.yaml", *(root / "tests/stack").glob("compose.*.yaml")):
        services = re.findall(r"(?m)^  ([\w-]+):", over.read_text())
        assert not set(services) & set(included), over
