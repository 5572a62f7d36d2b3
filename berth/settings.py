"""What the environment says of Berth's own part."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("json", "text")


@dataclass(frozen=True)
class Settings:
    """Read from environment variables of the same names; an empty one counts as not set.

    Attributes:
        app: Where the app is, as `shop.main:app` or `shop.main:create_app()`; empty where
            FastAPI's own discovery finds it.
        host: The address to listen on.
        port: The port that Traefik asks.
        metrics_port: The port that Prometheus asks; Traefik routes nobody there.
        api_workers: Server processes in this container.
        log_level: One of LOG_LEVELS.
        log_format: `json`, or `text` for people.
        app_version: What `/version` says.
        version_path: Another path for that, where the app has a `/version` of its own.
        database_host: Where PostgreSQL is; empty if there is none to wait for.
        database_port: Its port.
        database_name: The database.
        database_user: Who logs in; empty if the password's file leads to one of that name.
        database_password_file: Where the password is.
        database_url_file: Where a URL is that says all of this, in its place; empty if none does.
        database_ca_file: The CA that the server there must have its certificate from; empty if
            that is one that everybody trusts.
        trusted_proxies: Networks of what stands before Traefik; it is believed whom it asks for.
        max_body_bytes: Bytes that one request's body may have.
        max_in_flight: Requests that one process works on at a time.
        recycle_requests: Requests after which a process drains and starts anew; 0 is never.
        recycle_folder: What all replicas of this machine share, to take turns.
        cors_origins: Origins whose pages may read answers, with blanks between them.
        drain_seconds: Seconds of serving on after SIGTERM, for the proxy to notice.
        shutdown_seconds: Seconds for what is still in flight then. The container's
            stop_grace_period must exceed the sum of both.
    """

    app: str
    host: str
    port: int
    metrics_port: int
    api_workers: int
    log_level: str
    log_format: str
    app_version: str
    version_path: str
    database_host: str
    database_port: int
    database_name: str
    database_user: str
    database_password_file: Path
    database_url_file: str
    database_ca_file: str
    trusted_proxies: list[str]
    max_body_bytes: int
    max_in_flight: int
    recycle_requests: int
    recycle_folder: Path
    cors_origins: str
    drain_seconds: float
    shutdown_seconds: int

    @property
    def has_database(self) -> bool:
        """Whether there is one to wait for."""
        return bool(self.database_url_file or self.database_host)


class _Reader:
    """Takes values out of the environment, and keeps a sentence for each that is unusable."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        return self._environment.get(name) or default

    def path(self, name: str, default: str) -> str:
        return self._read(name, default, _absolute, "a path that begins with /")

    def one_of(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        found = {value.upper(): value for value in allowed}
        return self._read(name, default, lambda text: found[text.upper()], " or ".join(allowed))

    def whole(self, name: str, default: int, least: int, most: int = 2**63 - 1) -> int:
        bounds = f"a whole number from {least}" + (f" to {most}" if most < 2**63 - 1 else "")
        return self._read(name, default, lambda text: _within(int(text), least, most), bounds)

    def seconds(self, name: str, default: float, most: float) -> float:
        return self._read(
            name, default, lambda text: _within(float(text), 0, most), f"seconds from 0 to {most:g}"
        )

    def networks(self, name: str, default: list[str], named: Mapping[str, str]) -> list[str]:
        def parse(text: str) -> list[str]:
            given = ",".join(named.get(one, one) for one in text.split(","))
            return [str(ip_network(one, strict=False)) for one in given.split(",")]

        return self._read(name, default, parse, "addresses, networks or `cloudflare`, by commas")

    def _read(self, name: str, default: T, parse: Callable[[str], T], what: str) -> T:
        text = self.text(name)
        if not text:
            return default
        try:
            return parse(text)
        except (ValueError, KeyError):
            self.problems.append(f"{name}={text}: input should be {what}.")
            return default


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(path)
    return path


def _within(number: T, least: float, most: float) -> T:
    if not least <= number <= most:  # type: ignore[operator]
        raise ValueError(number)
    return number


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; values that cannot be used end the program with a line for each."""
    read = _Reader(environment)
    port = 65535
    settings = Settings(
        app=read.text("APP"),
        host=read.text("HOST", "0.0.0.0"),  # noqa: S104 - a container's network decides who reaches it
        port=read.whole("PORT", 8000, 0, port),
        metrics_port=read.whole("METRICS_PORT", 9000, 0, port),
        api_workers=read.whole("API_WORKERS", 1, 1, 64),
        log_level=read.one_of("LOG_LEVEL", "INFO", LOG_LEVELS),
        log_format=read.one_of("LOG_FORMAT", "json", LOG_FORMATS),
        app_version=read.text("APP_VERSION", "dev"),
        version_path=read.path("VERSION_PATH", "/version"),
        database_host=read.text("DATABASE_HOST"),
        database_port=read.whole("DATABASE_PORT", 5432, 1, port),
        database_name=read.text("DATABASE_NAME", "berth"),
        database_user=read.text("DATABASE_USER"),
        database_password_file=Path(
            read.text("DATABASE_PASSWORD_FILE", "/run/secrets/database-password")
        ),
        database_url_file=read.text("DATABASE_URL_FILE"),
        database_ca_file=read.text("DATABASE_CA_FILE"),
        trusted_proxies=read.networks(
            "TRUSTED_PROXIES", [], {"cloudflare": read.text("TRUSTED_PROXIES_CLOUDFLARE")}
        ),
        max_body_bytes=read.whole("MAX_BODY_BYTES", 2**20, 1),
        max_in_flight=read.whole("MAX_IN_FLIGHT", 250, 1),
        recycle_requests=read.whole("RECYCLE_REQUESTS", 0, 0),
        recycle_folder=Path(read.text("RECYCLE_FOLDER", "/run/berth")),
        cors_origins=read.text("CORS_ORIGINS"),
        drain_seconds=read.seconds("DRAIN_SECONDS", 3, 300),
        shutdown_seconds=read.whole("SHUTDOWN_SECONDS", 20, 1, 3600),
    )
    if read.problems:
        print("\n".join(read.problems), file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    return settings
