# ruff: noqa: INP001 - this folder is a place for Python to look in
"""Has asyncpg read PGOPTIONS, as libpq does, in what `migrate` runs for a database elsewhere.

Python imports a module of this name at its start, where PYTHONPATH leads to it.
"""

import os
from typing import Any

try:
    from asyncpg import connection
except ImportError:
    pass  # of another Python than the app's
else:
    import asyncpg

    _connect = connection.connect

    def _with_options(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        asked = {"options": os.environ.get("PGOPTIONS", "")}
        options["server_settings"] = asked | (options.get("server_settings") or {})
        return _connect(*args, **options)

    connection.connect = asyncpg.connect = _with_options
