"""How this process logs: lines of JSON on stderr, with the request's id and nobody's data."""

import contextlib
import fcntl
import json
import logging
import re
from types import TracebackType
from typing import TypeAlias

from .request_id import request_id

# What exceptions quote of the data that they could not work with: it may be anybody's.
QUOTED = re.compile(
    r"^DETAIL: .*$|(?<=input_value=).*(?=, input_type=)|(?<='input': ).*", re.MULTILINE
)

# As much as the kernel gives to everybody.
PIPE_BYTES = 2**20

ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class Record(logging.Formatter):
    """The text of a record and its traceback, without the data that exceptions quote."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        record.request_id = request_id.get()
        return super().format(record)

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 - logging's name
        return QUOTED.sub("…", super().formatException(ei))


class JsonRecord(Record):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage().rstrip(),
        }
        if own_id := request_id.get():
            line["request_id"] = own_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str, form: str = "text") -> None:
    """Send every record of this process to stderr, one line each unless there is a traceback."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonRecord()
        if form == "json"
        else Record("%(asctime)s %(levelname)-7s %(name)s: %(message)s %(request_id)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # While the engine restarts nobody reads what is written here: whoever fills it stands still.
    for output in (1, 2):
        with contextlib.suppress(OSError):  # no pipe
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
