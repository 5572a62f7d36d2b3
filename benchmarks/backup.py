"""`python3 -m benchmarks.backup`: how long backing up and restoring 1 GiB takes, and what it costs.

With the tests' environment (.venv/bin/python). All in one run, on a stack of its own.
"""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median

import requests
import urllib3

from host.commands import say
from tests.stack.stack import Stack, poll, running

GIB = 1 << 30
ROW_BYTES = 1024
CLIENTS = 8
SECONDS = 8.0
ROUNDS = 2


def load(stack: Stack, seconds: float, during: Callable[[], object] | None = None) -> float:
    """Return the answers per second to clients that write one row and read four, again and again.

    Args:
        stack: Where to.
        seconds: How long, unless something else is to happen meanwhile.
        during: What happens meanwhile; the load ends with it.
    """
    ended = threading.Event()
    counts = [0] * CLIENTS

    def run(number: int) -> None:
        with stack.session() as session:
            while not ended.is_set():
                with suppress(requests.RequestException, KeyError, ValueError):
                    row = session.post(stack.url("/items"), json={"name": "load"}, timeout=10)
                    path = stack.url(f"/items/{row.json()['id']}")
                    counts[number] += row.ok
                    for _ in range(4):
                        counts[number] += session.get(path, timeout=10).ok

    threads = [threading.Thread(target=run, args=[number]) for number in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    if during:
        during()
    else:
        time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - began)


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def psql(stack: Stack, statement: str) -> str:
    """Return what a statement yields in the app's database."""
    command = ("exec", "-T", "db", "psql", "-At", "--dbname=berth", f"--command={statement}")
    return stack.run("docker", "compose", *command).stdout.strip()


def fill(stack: Stack) -> int:
    """Write rows until the database has a gibibyte; return its size."""
    rows = GIB // 8 // ROW_BYTES
    insert = (
        "INSERT INTO items (name, description) SELECT 'filler', repeat(md5(random()::text), 30) "  # noqa: S608
        f"FROM generate_series(1, {rows})"
    )
    while (size := int(psql(stack, "SELECT pg_database_size('berth')"))) < GIB:
        psql(stack, insert)
    psql(stack, "CHECKPOINT")
    return size


def synchronous(stack: Stack, value: str) -> None:
    """Have writes wait for their copy, or not, and return when they do."""
    stack.environment["BACKUP_SYNCHRONOUS"] = value
    stack.compose("up", "--detach", "--no-deps", "backup")
    wanted = "backup" if value == "on" else ""
    shown = "SHOW synchronous_standby_names"
    poll("the setting", lambda: psql(stack, shown) == wanted)
    poll("the copy", lambda: psql(stack, "SELECT state FROM pg_stat_replication") == "streaming")


def await_proof(stack: Stack) -> None:
    """Return once the service itself has proven its newest base backup."""
    newest = 'newest=$(ls -d "$(cat /tmp/history)"/base/*/* | sort | tail -n 1); '
    check = newest + 'grep -q " ${newest##*/} " /backups/proven'
    command = ("docker", "compose", "exec", "-T", "backup", "bash", "-c", check)
    poll("a proof", lambda: stack.run(*command, check=False).returncode == 0, seconds=180)


def main() -> None:
    """Measure and print a table."""
    urllib3.disable_warnings()
    with running("berth-bench-backup", scale=2, BACKUP_DIR="backups", RATE_LIMIT="0") as stack:
        poll("the first answer", stack.answers)
        size = fill(stack)
        await_proof(stack)
        make = {
            "a full base backup": lambda: stack.run("make", "backup", "ANEW=yes"),
            "an incremental one after it": lambda: stack.run("make", "backup"),
            "proving it (`make verify-backup`)": lambda: stack.run("make", "verify-backup"),
            "restoring it (`make restore`), the app away": lambda: stack.run(
                "make", "restore", "YES=1"
            ),
        }
        backup = make.pop("a full base backup")
        took: dict[str, float] = {}

        def full() -> None:
            took["a full base backup, under load"] = timed(backup)

        rates: dict[str, list[float]] = {}
        # In turn, so that what else the machine does meets them all.
        for _ in range(ROUNDS):
            stack.compose("stop", "backup")
            rates.setdefault("no backup service", []).append(load(stack, SECONDS))
            synchronous(stack, "off")
            rates.setdefault("the log copied as it is written", []).append(load(stack, SECONDS))
            rates.setdefault("the same, during a full base backup", []).append(load(stack, 0, full))
            await_proof(stack)
            synchronous(stack, "on")
            rates.setdefault("each write waits for its copy", []).append(load(stack, SECONDS))
        say(f"{rates}")
        synchronous(stack, "off")
        for what, program in make.items():
            took[what] = timed(program)
            say(f"{took}")
            await_proof(stack)
    print(f"a database of {size / GIB:.2f} GiB\n")
    print("| what | seconds |\n|---|---|")
    for what, seconds in took.items():
        print(f"| {what} | {seconds:.1f} |")
    before = median(rates["no backup service"])
    print("\n| while | requests/s | of what it is without |\n|---|---|---|")
    for what, found in rates.items():
        print(f"| {what} | {median(found):.0f} | {median(found) / before:.0%} |")


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"berth: {error}") from None
