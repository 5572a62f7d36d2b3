"""A real certificate authority on the stack's own network: what Let's Encrypt would be to it."""

import json
from pathlib import Path

from tests.stack.authority import Authority

DIRECTORY = "https://pebble:14000/dir"


def prepare(folder: Path, *, certificate_seconds: int, host: str = "pebble") -> Path:
    """Write Pebble's configuration and the certificate of its own HTTPS.

    Args:
        folder: Becomes Pebble's /etc/pebble.
        certificate_seconds: How long the certificates that it signs are valid.
        host: The name or address at which it is reached.

    Returns:
        The private authority that signed Pebble's own certificate: ACME_CA_CERTIFICATE.
    """
    authority = Authority(folder)
    authority.certify(host)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": "0.0.0.0:14000",
                    "managementListenAddress": "0.0.0.0:15000",
                    "certificate": f"/etc/pebble/{host}.pem",
                    "privateKey": f"/etc/pebble/{host}-key.pem",
                    "httpPort": 80,
                    "tlsPort": 443,
                    "profiles": {
                        "default": {
                            "description": "for tests",
                            "validityPeriod": certificate_seconds,
                        }
                    },
                }
            }
        )
    )
    # Pebble runs as nobody.
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
    return authority.file
