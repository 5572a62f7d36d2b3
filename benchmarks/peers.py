"""Who is measured."""

import os
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "peers"
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Peer:
    """One way to serve the contract.

    Attributes:
        name: Its folder in peers/, whose compose.yaml goes over the repository's own.
        title: What it is, in the tables.
        proxy: The service that clients reach, in whose network the load is made.
        kind: "peer", "floor", or "workers" for Berth's app run in other ways.
        processes: How many processes of the app serve.
        scale: How many containers of `api`.
        url: Where the proxy serves, as seen from its own container.
    """

    name: str
    title: str
    proxy: str = "traefik"
    kind: str = "peer"
    processes: int = CORES
    scale: int = 1
    url: str = "https://localhost"

    @property
    def compose_files(self) -> str:
        """What goes into COMPOSE_FILE."""
        overlay = FOLDER / self.name / "compose.yaml"
        return f"compose.yaml:{overlay}" if overlay.exists() else "compose.yaml"


def berth(replicas: int) -> Peer:
    """Berth at a scale."""
    return Peer("berth", f"Berth, {replicas} replicas", processes=replicas, scale=replicas)


BERTH = berth(CORES)

PEERS = [
    BERTH,
    Peer("template", "FastAPI's template: fastapi run, SQLModel", processes=4),
    Peer("nginx-gunicorn", "nginx, gunicorn with uvicorn workers", proxy="nginx"),
    Peer("caddy-uvicorn", "Caddy, uvicorn --workers", proxy="caddy"),
    Peer("workers-uvicorn", "Berth's Traefik, uvicorn --workers", kind="workers"),
    Peer("workers-fastapi", "Berth's Traefik, fastapi run --workers", kind="workers"),
    Peer("workers-gunicorn", "Berth's Traefik, gunicorn", kind="workers"),
    Peer("workers-berth", f"Berth, 1 replica, API_WORKERS={CORES}", kind="workers"),
    Peer(
        "bare",
        "floor: uvicorn and asyncpg, plain HTTP",
        proxy="api",
        kind="floor",
        url="http://localhost:8000",
    ),
    Peer(
        "bare-fastapi",
        "floor: the least FastAPI, plain HTTP",
        proxy="api",
        kind="floor",
        url="http://localhost:8000",
    ),
    Peer("memory", "floor: Traefik before answers from memory", kind="floor", processes=1),
]
