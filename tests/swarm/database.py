"""A PostgreSQL elsewhere, as a provider has it: beside the machines, over TLS."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.stack.authority import Authority
from tests.stack.stack import docker, image, poll
from tests.swarm.machines import Machines

PASSWORD = "of-the-database"
# The key must be the server's own.
_START = """
install -o postgres -g postgres -m 600 /tls/$ADDRESS-key.pem /tmp/key.pem
exec docker-entrypoint.sh postgres -c ssl=on -c ssl_key_file=/tmp/key.pem \\
    -c ssl_cert_file=/tls/$ADDRESS.pem
"""


@dataclass(frozen=True)
class Database:
    """The server.

    Attributes:
        container: Its name.
        url: The file with what leads there.
        authority: The file with who has signed its certificate.
    """

    container: str
    url: Path
    authority: Path

    def sql(self, query: str, database: str = "shop") -> str:
        """Return what a query yields to its superuser."""
        psql = ("psql", "-qAtX", "--username=shop", f"--dbname={database}", f"--command={query}")
        return docker("exec", self.container, *psql)


@contextlib.contextmanager
def elsewhere(machines: Machines, authority: Authority) -> Iterator[Database]:
    """Run one in the machines' network."""
    address = machines.address(machines.count + 1)
    authority.certify(address)
    folder = authority.file.parent
    url = folder / "url"
    url.write_text(f"postgresql://shop:{PASSWORD}@{address}/shop\n")
    found = Database(f"{machines.name}-database", url, authority.file)
    docker(
        *("run", "--detach", f"--name={found.container}", f"--network={machines.network}"),
        *(f"--ip={address}", f"--volume={folder}:/tls:ro", f"--env=ADDRESS={address}"),
        *("--env=POSTGRES_USER=shop", f"--env=POSTGRES_PASSWORD={PASSWORD}"),
        *("--entrypoint=bash", image("postgres"), "-c", _START),
    )
    try:
        ready = "pg_isready --quiet --host=127.0.0.1 && echo ready || true"
        poll("PostgreSQL", lambda: docker("exec", found.container, "sh", "-c", ready), seconds=60)
        yield found
    finally:
        docker("rm", "--force", "--volumes", found.container)
