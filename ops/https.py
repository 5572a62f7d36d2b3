"""What the stack answers over HTTPS on this machine, asked without the DNS."""

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from host.commands import UserError
from ops.terminal import Terminal

_SECONDS = 5
_POLL_SECONDS = 0.1
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
TRAEFIK_DEFAULT = "TRAEFIK DEFAULT CERT"
# Traefik renews when a third of a usual certificate's life is left; with less, something is wrong.
LATE = 1 / 4


@dataclass(frozen=True)
class Endpoint:
    """Where Traefik listens for a domain."""

    domain: str
    address: str
    port: int

    @property
    def url(self) -> str:
        """What users type."""
        return f"https://{self.domain}" + ("" if self.port == 443 else f":{self.port}")

    @property
    def reached_at(self) -> str:
        """An address to connect to, where the stack may listen on all of them."""
        return _EVERYWHERE.get(self.address, self.address)

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Connect and shake hands.

        Raises:
            OSError: It does not work; among these is every ssl.SSLError.
        """
        plain = socket.create_connection((self.reached_at, self.port), timeout=_SECONDS)
        try:
            return context.wrap_socket(plain, server_hostname=self.domain)
        except OSError:
            plain.close()
            raise

    def served(self) -> bytes:
        """Return the certificate that is served, whoever signed it, in DER form.

        Raises:
            OSError: Nothing answers.
        """
        with self.connect(_trusting_all()) as connection:
            return connection.getpeercert(binary_form=True) or b""

    def await_ready(self, terminal: Terminal, seconds: float) -> None:
        """Return once a replica answers through Traefik.

        Args:
            terminal: Who may give it up.
            seconds: How long that may take.

        Raises:
            UserError: None does.
        """
        deadline = time.monotonic() + seconds
        while (status := self.status("/readyz")) != 200:
            if time.monotonic() > deadline:
                answer = f"answers {status}" if status else "does not answer"
                raise UserError(
                    f"everything runs, but {self.url}/readyz {answer}: see `make doctor`"
                )
            terminal.checkpoint()
            time.sleep(_POLL_SECONDS)

    def status(self, path: str) -> int:
        """Return the status of the answer to a GET, 0 if there is none."""
        connection = http.client.HTTPConnection(self.domain, self.port)
        try:
            connection.sock = self.connect(_trusting_all())
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


@dataclass(frozen=True)
class Certificate:
    """A certificate, as far as an operator cares."""

    issuer: str
    begins: datetime
    ends: datetime

    @property
    def is_traefiks_own(self) -> bool:
        """Whether it is the one that Traefik signs itself when it has none."""
        return TRAEFIK_DEFAULT in self.issuer

    @property
    def life(self) -> timedelta:
        """How long it is good in all."""
        return self.ends - self.begins


def certificate(endpoint: Endpoint) -> Certificate:
    """Return the certificate that is served, whoever signed it.

    Raises:
        ssl.SSLCertVerificationError: It has ended, or has not begun.
        OSError: Nothing answers.
    """
    encoded = endpoint.served()
    # Python reads only a certificate that it trusts: so trust this very one, and look again.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=encoded)
    with endpoint.connect(context) as connection:
        found: dict[str, Any] = dict(connection.getpeercert() or {})
    issuer = dict(pair for part in found["issuer"] for pair in part)
    return Certificate(
        issuer=issuer.get("organizationName") or issuer.get("commonName", "nobody"),
        begins=_moment(found["notBefore"]),
        ends=_moment(found["notAfter"]),
    )


def _moment(printed: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(printed), UTC)


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
