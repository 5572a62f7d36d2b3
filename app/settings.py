import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]
LogFormat = Literal["json", "text"]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Read from environment variables of the same names; an empty one counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    host: str = "0.0.0.0"  # noqa: S104 - a container's own network decides who reaches it
    port: Port = 8000
    # Where Prometheus asks; Traefik routes nobody there.
    metrics_port: Port = 9000
    # Server processes in this container; above 1 only for hosts with many cores.
    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "json"
    app_version: str = "dev"

    database_host: str = "db"
    database_port: Port = 5432
    database_name: str = "berth"
    database_user: str = "berth"
    database_password_file: Path = Path("/run/secrets/database-password")
    # Connections per process. Few are faster than many: the database has as many cores as it has.
    database_pool_size: PositiveInt = 4

    # What one request may bring, and how many of them one process works on at a time.
    max_body_bytes: PositiveInt = 2**20
    max_in_flight: PositiveInt = 250
    # Requests, less those to /livez and /readyz, after which a process starts anew; 0 is never.
    recycle_requests: NonNegativeInt = 0
    # Web pages of other origins that a browser may let read answers, such as
    # "https://example.org https://www.example.org"; by default none.
    cors_origins: str = ""

    # Seconds of serving on after SIGTERM, for the proxy to notice; then seconds for what is
    # still in flight. The container's stop_grace_period must exceed their sum.
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 3
    shutdown_seconds: Annotated[int, Field(ge=1, le=3600)] = 20

    def database_passwords(self) -> list[str]:
        """What the files say at this moment: the password, and while it changes the next one."""
        file = self.database_password_file
        found = [file.read_text()]
        with suppress(FileNotFoundError):
            found.append(file.with_name(f"{file.name}.next").read_text())
        return [password.rstrip("\n") for password in found]


def load_settings() -> Settings:
    """Settings for a program's start; values that cannot be used end it with a line for each."""
    try:
        return Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"{name}={problem['input']}: {problem['msg']}.", file=sys.stderr)
        sys.exit(os.EX_CONFIG)
