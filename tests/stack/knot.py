"""A real DNS server on the stack's own network, in which Traefik proves what is its."""

import base64
import secrets
from pathlib import Path

_CONFIGURATION = """
server:
    listen: 0.0.0.0@53
    rundir: /tmp
log:
  - target: stderr
    any: info
database:
    storage: /tmp
key:
  - id: berth
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: berth
    key: berth
    action: update
zone:
  - domain: {domain}
    file: /etc/knot/zone
    zonefile-sync: -1
    acl: berth
"""
# Of addresses there is none: the authority could not find anybody at port 80.
_ZONE = """
@ 1 SOA ns hostmaster 1 60 60 60 1
@ 1 NS ns
"""


def prepare(folder: Path, keys: Path, domain: str) -> str:
    """Write the server's configuration, and what lets Traefik change its records.

    Args:
        folder: Becomes Knot's /etc/knot.
        keys: Becomes the checkout's keys/dns.
        domain: The zone.

    Returns:
        The secret.
    """
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    folder.mkdir()
    (folder / "knot.conf").write_text(_CONFIGURATION.format(secret=secret, domain=domain))
    (folder / "zone").write_text(_ZONE)
    # Knot runs as nobody.
    folder.chmod(0o755)
    keys.mkdir(parents=True)
    for name, value in {
        "NAMESERVER": "knot",
        "TSIG_KEY": "berth",
        "TSIG_ALGORITHM": "hmac-sha256",
        "TSIG_SECRET": secret,
        "POLLING_INTERVAL": "1",
        "SEQUENCE_INTERVAL": "1",
    }.items():
        file = keys / f"RFC2136_{name}"
        file.write_text(f"{value}\n")
        file.chmod(0o600)
    return secret
