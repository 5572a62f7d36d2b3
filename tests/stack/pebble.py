"""A real certificate authority on the stack's own network: what Let's Encrypt would be to it."""

import datetime
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DIRECTORY = "https://pebble:14000/dir"


def prepare(folder: Path, *, certificate_seconds: int) -> Path:
    """Write Pebble's configuration and the certificate of its own HTTPS.

    Args:
        folder: Becomes Pebble's /etc/pebble.
        certificate_seconds: How long the certificates that it signs are valid.

    Returns:
        The private authority that signed Pebble's own certificate: ACME_CA_CERTIFICATE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("Test authority")
    authority = (
        _certificate(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _certificate(_name("pebble"), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("pebble")]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    authority_file = folder / "authority.pem"
    authority_file.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "pebble.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "pebble-key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "config.json").write_text(
        json.dumps(
            {
                "pebble": {
                    "listenAddress": "0.0.0.0:14000",
                    "managementListenAddress": "0.0.0.0:15000",
                    "certificate": "/etc/pebble/pebble.pem",
                    "privateKey": "/etc/pebble/pebble-key.pem",
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
    return authority_file


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
