from pydantic import PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from environment variables of the same names; an empty one counts as not set."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    # Connections per process. Few are faster than many: the database has as many cores as it has.
    database_pool_size: PositiveInt = 4
