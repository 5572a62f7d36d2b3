"""Running other programs, and saying what happens."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence


class UserError(Exception):
    """The host cannot be made ready; the message is one sentence with the way out."""


def carried_out(work: Callable[[], None]) -> int:
    """Do a program's work.

    Returns:
        The exit code: 0, or 1 after the error's sentence on standard error.
    """
    try:
        work()
    except UserError as error:
        print(f"berth: {error}", file=sys.stderr)
        return 1
    return 0


def allowed(variable: str) -> bool:
    """Whether the step that an environment variable governs is on (it is, unless set to `no`)."""
    return os.environ.get(variable, "").lower() not in {"no", "0", "false"}


def say(sentence: str) -> None:
    """Tell the user what is being done; standard output stays free for results."""
    print(f"berth: {sentence}", file=sys.stderr, flush=True)


def output(*command: str) -> str | None:
    """Return what a command prints, stripped, or None when it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run(
    command: Sequence[str], *, purpose: str, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command quietly.

    Args:
        command: The program and its arguments.
        purpose: What it does, to complete the sentence "cannot ...".
        environment: Variables to add to the present ones.

    Raises:
        UserError: It failed; the sentence ends with the last lines that it printed.
    """
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        tail = "\n  ".join(done.stdout.strip().splitlines()[-15:])
        raise UserError(f"cannot {purpose}: {command[0]} exited with {done.returncode}\n  {tail}")
