"""What the example costs beside that of another commit: `python -m benchmarks.example COMMIT`.

Both run under the server of this tree, each with the packages that it pins, on one PostgreSQL, and
are asked in turn by a client beside them. So a rate is what that leaves of the machine: processor
time per request is the figure to read.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.berth.postgres import PASSWORD, ROOT, Postgres
from tests.berth.programs import eventually
from tests.ports import free_port

ROUNDS = 8
SECONDS = 1
CONNECTIONS = 16
# What is asked: the last one shows what the example has no part in.
KINDS = ("row", "page", "create", "version")

SEED = """
INSERT INTO items (id, name, description, quantity)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'item ' || n,
       'A row like any other, with a sentence to carry.', n FROM generate_series(0, 9999) n
"""


@dataclass
class Example:
    """One of the two, as it runs.

    Attributes:
        rates: Answers per second, by kind and round.
        costs: The replica's processor time per answer in µs, likewise.
    """

    name: str
    process: int
    port: int
    rates: dict[str, list[float]] = field(default_factory=dict)
    costs: dict[str, list[float]] = field(default_factory=dict)

    def ask(self, kind: str) -> None:
        """Ask for one of KINDS for as long as a turn lasts."""
        before = self._cpu_seconds()
        answers, seconds = asyncio.run(_load(self.port, kind))
        self.rates.setdefault(kind, []).append(answers / seconds)
        spent = (self._cpu_seconds() - before) / answers * 1e6
        self.costs.setdefault(kind, []).append(spent)

    def memory_mib(self) -> float:
        """Return what it holds, less what it shares with others."""
        lines = Path(f"/proc/{self.process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def is_ready(self) -> bool:
        """Whether it serves."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).ok
        except requests.ConnectionError:
            return False


def request(kind: str, number: int) -> bytes:
    """Return a request as it goes over the wire."""
    host = "HTTP/1.1\r\nHost: localhost\r\n"
    if kind == "row":
        return f"GET /items/00000000-0000-7000-8000-{number % 10_000:012x} {host}\r\n".encode()
    if kind == "create":
        body = f'{{"name": "item {number}", "quantity": 1}}'
        headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"POST /items {host}{headers}\r\n{body}".encode()
    return f"GET /{'items' if kind == 'page' else kind} {host}\r\n".encode()


async def _load(port: int, kind: str) -> tuple[int, float]:
    began = time.monotonic()
    clients = (_client(port, kind, number, began + SECONDS) for number in range(CONNECTIONS))
    counts = await asyncio.gather(*clients)
    return sum(counts), time.monotonic() - began


async def _client(port: int, kind: str, number: int, end: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.monotonic() < end:
        writer.write(request(kind, number + count * CONNECTIONS))
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split()[1] not in {b"200", b"201"}:
            raise RuntimeError(head.decode())
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        await reader.readexactly(int(length))
        count += 1
    writer.close()
    return count


def prepare(folder: Path, commit: str) -> None:
    """Put the example of a commit into a folder, with a virtual environment of what it pins."""
    files = ("app", "migrations", "pyproject.toml", "requirements.txt")
    archive = subprocess.check_output(["git", "archive", commit, *files], cwd=ROOT)
    subprocess.run(["tar", "--extract"], cwd=folder, input=archive, check=True)
    uv = (sys.executable, "-m", "uv", "--quiet")
    pins = ("--requirements=requirements.txt", f"--requirements={ROOT}/berth/requirements.in")
    for command in (
        [*uv, "venv", f"--python={sys.executable}", ".venv"],
        [*uv, "pip", "install", "--python=.venv/bin/python", *pins],
    ):
        subprocess.run(command, cwd=folder, check=True)


@contextmanager
def running(name: str, folder: Path, postgres: Postgres) -> Iterator[Example]:
    """Run the example of a folder, on a database of its own."""
    database, port, password = postgres.create_database(), free_port(), folder / "password"
    password.write_text(PASSWORD)
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "DATABASE_HOST": "127.0.0.1",
        "DATABASE_PORT": str(postgres.port),
        "DATABASE_NAME": database,
        "DATABASE_USER": "berth",
        "DATABASE_PASSWORD_FILE": str(password),
    }
    python = f"{folder}/.venv/bin/python"
    migrate = [python, "-m", "berth.migrate"]
    subprocess.run(migrate, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    postgres.sql(database, SEED)
    postgres.sql(database, "VACUUM ANALYZE items")
    server = subprocess.Popen([python, "-m", "berth.server"], cwd=folder, env=environment)
    try:
        example = Example(name, server.pid, port)
        eventually(example.is_ready, "ready", 30)
        yield example
    finally:
        server.terminate()
        server.wait()


def main(commit: str) -> None:
    """Measure and print."""
    postgres = Postgres()
    with ExitStack() as stack:
        stack.callback(postgres.remove)
        postgres.run()
        examples = []
        for name in (commit, "HEAD"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            prepare(folder, name)
            examples.append(stack.enter_context(running(name, folder, postgres)))
        rest = [example.memory_mib() for example in examples]
        for number in range(ROUNDS + 1):
            for kind in KINDS:
                for example in examples if number % 2 else reversed(examples):
                    example.ask(kind)
        load = [example.memory_mib() for example in examples]
    print(f"| | {commit} | HEAD | HEAD / {commit} |\n|---|---:|---:|---:|")
    for kind in KINDS:
        row(f"{kind}, /s", *(statistics.median(one.rates[kind][1:]) for one in examples))
        row(f"{kind}, µs", *(statistics.median(one.costs[kind][1:]) for one in examples))
    row("MiB at rest", *rest)
    row("MiB under load", *load)


def row(title: str, old: float, new: float) -> None:
    """Print a line of the table."""
    print(f"| {title} | {old:,.0f} | {new:,.0f} | {new / old:.2f} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
