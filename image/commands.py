"""Running programs in a build, and ending one with a sentence."""

import re
import subprocess
import sys
from collections.abc import Callable

from image.app import AppError

# What whoever started the build looks for in its log.
MARK = "berth: "
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_COMPILER = "gcc g++ libc6-dev"


def carried_out(work: Callable[..., None]) -> int:
    """Do a program's work with its arguments.

    Returns:
        The exit code: 0, or 1 after a sentence on standard error.
    """
    try:
        work(*sys.argv[1:])
    except AppError as error:
        print(f"{MARK}{error}", file=sys.stderr, flush=True)
        return 1
    return 0


def run(*command: str) -> None:
    """Run a program, with its output passed on.

    Raises:
        AppError: It failed.
    """
    printed = []
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert child.stdout  # noqa: S101 - it is a pipe
    for line in child.stdout:
        print(line, end="", flush=True)
        printed.append(line)
    if child.wait() != 0:
        raise AppError(explain(_COLOUR.sub("", "".join(printed))))


def explain(log: str) -> str:
    """Return why an installation failed, and the way out, in one sentence."""
    package = re.search(r"Failed to (?:build|download and build)\s+`([^`]+)`", log)
    what = package[1] if package else "a dependency"
    header = re.search(r"fatal error: (\S+): No such file", log)
    tries: dict[str, str] = {
        r"lock ?file.* needs to be updated": "uv.lock does not fit pyproject.toml: run `uv lock`",
        r"pyproject\.toml changed significantly": (
            "poetry.lock does not fit pyproject.toml: run `poetry lock`"
        ),
        r"Unable to locate package|has no installation candidate": (
            f"APP_PACKAGES: Debian has no package {_unknown(log)}; `apt-cache search` finds names"
        ),
        r"Git executable not found|git: not found|No such file or directory: 'git'": (
            'a dependency comes from git: set APP_PACKAGES="git" in .env'
        ),
        r"pg_config": _needs(what, "PostgreSQL's library", f"{_COMPILER} libpq-dev"),
        r"mysql(client)?.*pkg-config|mysql_config": _needs(
            what, "MySQL's library", f"{_COMPILER} pkg-config default-libmysqlclient-dev"
        ),
        r"fatal error: Python\.h": _needs(what, "Python's headers", f"{_COMPILER} python3-dev"),
        r"rustc|cargo(?:`|:| is) not": _needs(what, "a Rust compiler", "cargo"),
        r"fatal error: \S+: No such file": (
            f"{what} has to be compiled and misses {header[1] if header else ''}: name the Debian "
            "package with that file in APP_PACKAGES; `apt-file search` finds it"
        ),
        r"(gcc|g\+\+|cc|c\+\+|clang)['`]? failed: No such file|Unknown compiler|not find compiler"
        r"|C compiler cannot|No CMAKE_C\w*_COMPILER"
        r"|(No such file or directory:|unable to execute) '\S*(gcc|g\+\+|cc)'": _needs(
            what, "a compiler", _COMPILER
        ),
        r"THESE PACKAGES DO NOT MATCH THE HASHES|[Hh]ash mismatch": (
            "a package is another one than the lock's hash says: the lock, or where it comes from, "
            "was changed"
        ),
    }
    for pattern, sentence in tries.items():
        if re.search(pattern, log):
            return sentence
    if package:
        return (
            f"{what} cannot be built for this Python ({_PYTHON}), as the log says; if it is older, "
            "set PYTHON_IMAGE in .env to an older one, or depend on a newer version"
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [
        line for line in lines if re.match(r"error|\N{MULTIPLICATION SIGN}|E:", line, re.IGNORECASE)
    ]
    said = (telling or lines[-1:] or ["it said nothing"])[0]
    return f"what the app depends on cannot be installed: {said}"


def _needs(package: str, what: str, names: str) -> str:
    return (
        f"{package} has to be compiled for this Python ({_PYTHON}), and the image lacks {what}: "
        f'set APP_PACKAGES="{names}" in .env, or PYTHON_IMAGE to one that it comes compiled for'
    )


def _unknown(log: str) -> str:
    return ", ".join(dict.fromkeys(re.findall(r"(?:locate package|Package '?)\s*([\w.+-]+)", log)))
