"""Imports the app: `python -m berth.importing` does so once, before anything is migrated.

So that what keeps it from being imported is said once, and not by each replica. It sees what a
replica sees, but for the database, where it could change things with the rights of whoever
migrates, or look for tables that are not there yet: an app that wants it while it is imported is
judged by its replicas.
"""

import logging
import os
import signal
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import environment, logs
from .asgi import ASGIApp
from .discovery import AppNotFoundError, load
from .outage import forbidden, unavailable
from .settings import Settings, load_settings

logger = logging.getLogger("importing")

PATIENCE_SECONDS = 15
# Whose part in a traceback is of no use to the app's author.
_OURS = {"__main__", "importlib", __name__.split(".", maxsplit=1)[0], str(__package__)}


def load_app(settings: Settings) -> ASGIApp:
    """Import the app; what keeps that from working ends the program."""
    try:
        return load(settings.app)
    except Exception as error:  # noqa: BLE001 - whatever the app's code raises
        _end(error)


def _end(error: Exception) -> NoReturn:
    if isinstance(error, AppNotFoundError):
        sys.exit(f"{error}")
    own = error.__traceback__
    while own and own.tb_frame.f_globals.get("__name__", "").split(".")[0] in _OURS:
        own = own.tb_next
    traceback.print_exception(type(error), error, own or error.__traceback__)
    sys.exit(f"the app cannot be imported: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return what an app's own code has raised, and the way out of what it misses."""
    way_out = "set it in app.env, or as a file in secrets/"
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, KeyError) and last.f_globals["__name__"] == "os":
        return f"there is no variable {error.args[0]}: {way_out}"
    # Of pydantic's, as pydantic-settings raises it.
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return f"{getattr(error, 'title', '')}: {'; '.join(said)}: {way_out}"
    return forbidden(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"


def _prepare(settings: Settings) -> None:
    """Set what a replica would find; but where the database should be, nobody listens."""
    with tempfile.NamedTemporaryFile("w") as password:
        password.write("unknown")
        password.flush()
        if settings.has_database:
            settings = replace(
                settings,
                database_url_file="",
                database_host="127.0.0.1",
                database_port=1,
                database_user="berth",
                database_password_file=Path(password.name),
            )
        environment.prepare(settings)


def _give_up(_number: int, _frame: FrameType | None) -> None:
    logger.warning("the app takes over %d s to import: replicas will tell", PATIENCE_SECONDS)
    os._exit(0)  # an exception would run into whatever the app catches


def main() -> None:
    """Import the app and end."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    _prepare(settings)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(PATIENCE_SECONDS)
    try:
        load(settings.app)
    except (Exception, SystemExit) as error:
        if unavailable(error):
            logger.warning("the app wants its database while it is imported: replicas will tell")
        elif isinstance(error, Exception):
            _end(error)
        else:
            raise
    sys.stdout.flush()
    os._exit(0)  # threads that it has started may never end


if __name__ == "__main__":
    main()
