from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Read from environment variables of the same names; an empty one counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    database_host: str = "db"
    database_port: Port = 5432
    database_name: str = "berth"
    database_user: str = "berth"
    database_password_file: Path = Path("/run/secrets/database-password")
    # Connections per process. Few are faster than many: the database has as many cores as it has.
    database_pool_size: PositiveInt = 4

    def database_passwords(self) -> list[str]:
        """What the files say at this moment: the password, and while it changes the next one."""
        file = self.database_password_file
        found = [file.read_text()]
        with suppress(FileNotFoundError):
            found.append(file.with_name(f"{file.name}.next").read_text())
        return [password.rstrip("\n") for password in found]
