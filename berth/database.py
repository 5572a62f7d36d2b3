"""Where the database is and who logs in: as Berth is told, and as drivers want to read it."""

import os
import re
import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from .settings import Settings

_URL = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?P<user>[^:@/?#]+)(?::(?P<password>[^@/?#]*))?@"
    r"(?P<hosts>[^@/?#]+)/(?P<name>[^@/?#]+)(?:\?(?P<options>[^#]*))?"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?")
_FORM = "postgresql://user:password@host:5432/name"

VERIFIED = "verify-full"
_SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", VERIFIED)
# By which drivers know what a URL may say after its `?`: libpq's, and those of asyncpg's.
_VARIABLES = {
    "application_name": "PGAPPNAME",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "gssencmode": "PGGSSENCMODE",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
    "options": "PGOPTIONS",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}
# What everybody trusts, in an image of Debian's; asyncpg must be told, and takes a file alone.
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


class DatabaseURLError(Exception):
    """What DATABASE_URL_FILE holds cannot be used. Says why, and nothing of its secret."""


@dataclass(frozen=True)
class Database:
    """Where it is, and who logs in.

    Attributes:
        hosts: Its names or addresses, each with a port; the first that will do is taken.
        name: The database.
        user: Who logs in.
        password: By this.
        options: What is asked of a connection, by libpq's names; none for a database of Berth's.
    """

    hosts: tuple[tuple[str, int], ...]
    name: str
    user: str
    password: str = field(repr=False)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it is, as a sentence says it."""
        return ",".join(_joined(*one) for one in self.hosts)

    @property
    def sslmode(self) -> str:
        """Whether TLS is wanted, and who may answer, by libpq's word; a blank is nobody's wish."""
        return self.options.get("sslmode", "")

    def variables(self) -> dict[str, str]:
        """Return PGHOST and its like."""
        hosts, ports = zip(*self.hosts, strict=True)
        found = {
            "PGHOST": ",".join(hosts),
            "PGPORT": ",".join(str(port) for port in ports),
            "PGDATABASE": self.name,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
        }
        known = self.options.keys() & _VARIABLES.keys()
        return found | {_VARIABLES[name]: self.options[name] for name in sorted(known)}

    def url(self, scheme: str) -> str:
        """Return a URL for a driver.

        Of SQLAlchemy's, which have a + in their scheme, each has words of its own for what
        PGSSLMODE and its like say in any case, and one way of naming several hosts.
        """
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        options = list(self.options.items())
        hosts = self.where
        if "+" in scheme:
            options = [one for one in options if one[0] not in _VARIABLES]
            if len(self.hosts) > 1:
                options = [("host", _joined(*one)) for one in self.hosts] + options
                hosts = ""
        asked = "&".join(f"{name}={quote(value, safe='/:')}" for name, value in options)
        where = f"{login}{hosts}/{quote(self.name, safe='')}"
        return f"{scheme}://{where}{'?' if asked else ''}{asked}"

    def arguments(self) -> dict[str, Any]:
        """Return what asyncpg wants to connect; not all that an app may have asked of its driver.

        Raises:
            DatabaseURLError: The CA's certificates cannot be read.
        """
        hosts, ports = zip(*self.hosts, strict=True)
        found: dict[str, Any] = {
            "host": list(hosts),
            "port": list(ports),
            "user": self.user,
            "password": self.password,
            "database": self.name,
        }
        if self.sslmode:
            found["ssl"] = self._context() or self.sslmode
        if attributes := self.options.get("target_session_attrs"):
            found["target_session_attrs"] = attributes
        return found

    def _context(self) -> ssl.SSLContext | None:
        file = self.options.get("sslrootcert")
        if not file:
            return None
        # As asyncpg's own: Python's default refuses authorities that libpq does not.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.sslmode == VERIFIED
        try:
            context.load_verify_locations(cafile=file)
        except ssl.SSLError:
            raise DatabaseURLError(
                "DATABASE_CA: the file holds no certificate in PEM form"
            ) from None
        except OSError:
            raise DatabaseURLError(
                f"there is no {file} in the image: give the provider's CA as DATABASE_CA, or "
                "APP_PACKAGES=ca-certificates"
            ) from None
        return context


def login(settings: Settings) -> Database | None:
    """Return where the database is, as the files say at this moment; None if there is none.

    Raises:
        DatabaseURLError: DATABASE_URL_FILE cannot be used.
    """
    if settings.database_url_file:
        try:
            text = Path(settings.database_url_file).read_text()
        except (OSError, UnicodeDecodeError):
            raise DatabaseURLError("DATABASE_URL_FILE: the file cannot be read") from None
        return parse(text.strip(), settings.database_ca_file)
    if not settings.database_host:
        return None
    user, file = settings.database_user, settings.database_password_file
    if not user:
        # A link to a file that is called as the role: so both change at once.
        file = file.parent / file.readlink()
        user = file.name
    return Database(
        hosts=((settings.database_host, settings.database_port),),
        name=settings.database_name,
        user=user,
        password=file.read_text().rstrip("\n"),
    )


def parse(url: str, authority: str = "") -> Database:
    """Read a URL as libpq does, but verify TLS unless it says otherwise.

    Args:
        url: With a user and a database; several hosts have commas between them.
        authority: The file with the provider's CA; a blank is whom everybody trusts.

    Raises:
        DatabaseURLError: It cannot be used.
    """
    parts = _URL.fullmatch(url)
    if not parts:
        raise DatabaseURLError(
            f"DATABASE_URL_FILE: give one line like {_FORM}, with @, /, :, ?, # and % in a "
            "password as %40, %2F, %3A, %3F, %23 and %25"
        )
    options = {}
    for pair in filter(None, (parts["options"] or "").split("&")):
        name, _, value = pair.partition("=")
        options[unquote(name)] = unquote(value)
    mode = options.setdefault("sslmode", VERIFIED)
    if mode not in _SSLMODES:
        raise DatabaseURLError(
            f"DATABASE_URL_FILE: sslmode={mode}: give one of {', '.join(_SSLMODES)}; left out, it "
            "is the last"
        )
    if options.pop("sslrootcert", "system") != "system":
        raise DatabaseURLError(
            "DATABASE_URL_FILE: sslrootcert names a file that is not in the image: name it in .env "
            "as DATABASE_CA"
        )
    if authority or mode.startswith("verify"):
        options["sslrootcert"] = authority or _AUTHORITIES
    return Database(
        hosts=tuple(_host(one) for one in parts["hosts"].split(",")),
        name=unquote(parts["name"]),
        user=unquote(parts["user"]),
        password=unquote(parts["password"] or ""),
        options=options,
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if not found or not 0 < int(found[2] or 5432) < 2**16:
        raise DatabaseURLError(
            f"DATABASE_URL_FILE: {text} is no host and port; it is like {_FORM}, with commas "
            "between several hosts"
        )
    return unquote(found[1]).strip("[]"), int(found[2] or 5432)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def export(settings: Settings) -> None:
    """Put what leads to the database into this process's environment, and so into the app's.

    As PGHOST and its like, which libpq, psycopg and asyncpg read, and as DATABASE_URL. What is set
    already stays. A URL that cannot be used ends the program with a sentence.
    """
    try:
        database = login(settings)
    except DatabaseURLError as error:
        sys.exit(str(error))
    if not database:
        return
    found = database.variables()
    found["DATABASE_URL"] = database.url(os.environ.get("DATABASE_SCHEME") or "postgresql")
    for variable, value in found.items():
        os.environ.setdefault(variable, value)
