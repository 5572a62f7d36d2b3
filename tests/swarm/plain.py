"""The same app as most stack files have it: uvicorn, and Traefik's labels as it documents them."""

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.stack.load import Load
from tests.stack.stack import DOMAIN, poll
from tests.swarm.events import Event
from tests.swarm.swarm import Swarm

NAME = "plain"
# What users wait for until they look.
PATIENCE_SECONDS = 120


def stack_file(swarm: Swarm, image: str) -> dict[str, Any]:
    """Return what `docker stack deploy` takes: all else is at its defaults.

    Ports of machines and addresses of tasks stand in for the routing mesh, which needs a kernel
    with IPVS.
    """
    url, settings = urlsplit(swarm.database.url.read_text().strip()), swarm.stack.environment
    return {
        "version": "3.13",
        "services": {
            "traefik": {
                "image": settings["TRAEFIK_IMAGE"],
                "command": [
                    "--providers.swarm.endpoint=unix:///var/run/docker.sock",
                    "--providers.swarm.exposedbydefault=false",
                    f"--providers.swarm.network={NAME}_edge",
                    "--providers.file.filename=/tls.yaml",
                    "--entrypoints.websecure.address=:443",
                ],
                "ports": [{"mode": "host", "target": 443, "published": 443}],
                "networks": ["edge"],
                "volumes": ["/var/run/docker.sock:/var/run/docker.sock:ro"],
                "configs": [{"source": "tls", "target": "/tls.yaml"}],
                "secrets": ["certificate", "key"],
                "deploy": {
                    "mode": "global",
                    "endpoint_mode": "dnsrr",
                    "placement": {"constraints": ["node.role == manager"]},
                },
            },
            "api": {
                "image": image,
                "init": True,
                "entrypoint": ["uvicorn", "--host=0.0.0.0", "--port=8000", "faults:app"],
                "environment": {
                    "PGHOST": url.hostname,
                    "PGUSER": url.username,
                    "PGPASSWORD": url.password,
                    "PGDATABASE": url.path[1:],
                    "PGSSLMODE": "require",
                },
                "networks": ["edge"],
                "configs": [{"source": "faults", "target": "/srv/faults.py"}],
                "deploy": {
                    "replicas": 4,
                    "endpoint_mode": "dnsrr",
                    "labels": [
                        "traefik.enable=true",
                        f"traefik.http.routers.api.rule=Host(`{DOMAIN}`)",
                        "traefik.http.routers.api.entrypoints=websecure",
                        "traefik.http.routers.api.tls=true",
                        "traefik.http.services.api.loadbalancer.server.port=8000",
                    ],
                },
            },
        },
        "networks": {"edge": {}},
        "configs": {
            "tls": {"file": "tls.yaml"},
            "faults": {"file": settings["FAULTS_FILE"]},
        },
        "secrets": {
            "certificate": {"file": settings["TLS_CERTIFICATE"]},
            "key": {"file": settings["TLS_KEY"]},
        },
    }


def _apply(swarm: Swarm, folder: Path, image: str) -> None:
    (folder / "tls.yaml").write_text(
        "tls: {certificates: [{certFile: /run/secrets/certificate, keyFile: /run/secrets/key}]}"
    )
    file = folder / "stack.json"
    file.write_text(json.dumps(stack_file(swarm, image)))
    swarm.machines.docker(1, "stack", "deploy", "--detach=true", f"--compose-file={file}", NAME)


def bring(swarm: Swarm, folder: Path, image: str) -> None:
    """Deploy a version, and wait until it serves."""
    _apply(swarm, folder, image)
    poll("four replicas", lambda: len(swarm.tasks()) == 4, seconds=90)


def deploy(swarm: Swarm, folder: Path, image: str) -> Event:
    """Another version, and as long as it takes, or as anybody waits."""

    def event(load: Load) -> None:
        before = set(swarm.tasks())
        load.mark()
        _apply(swarm, folder, image)
        form = "--format={{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"

        def is_over() -> bool:
            state = swarm.machines.docker(1, "service", "inspect", form, f"{NAME}_api")
            now = set(swarm.tasks())
            return state == "paused" or (state == "completed" and not now & before)

        with contextlib.suppress(AssertionError):  # which is a result too
            poll("the update", is_over, seconds=PATIENCE_SECONDS)

    return event


@contextlib.contextmanager
def instead(swarm: Swarm, folder: Path) -> Iterator[Swarm]:
    """Run it in the place of a stack of Berth's, which comes back afterwards."""
    image = swarm.build()
    stack = copy.copy(swarm.stack)
    stack.project = NAME
    plain = Swarm(swarm.machines, stack, swarm.database, design=NAME, ready="/items", health="none")
    swarm.make("swarm-down")
    try:
        bring(plain, folder, image)
        yield plain
    finally:
        swarm.machines.docker(1, "stack", "rm", NAME)
        form = f"--filter=label=com.docker.stack.namespace={NAME}"
        poll("its end", lambda: not swarm.machines.docker(1, "network", "ls", "--quiet", form))
        swarm.make("swarm-deploy", f"IMAGE={image}")
