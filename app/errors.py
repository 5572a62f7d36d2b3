import json
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel


class Problem(BaseModel):
    detail: str


# What any operation may answer besides its own: in the documentation of each.
RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body cannot be read"},
    413: {"model": Problem, "description": "The body is too large"},
    414: {"model": Problem, "description": "The URL is too long"},
    429: {"model": Problem, "description": "Too many requests: Retry-After says when to come back"},
    500: {"content": {"text/plain": {}}, "description": "A bug; its log has X-Request-ID"},
    503: {"model": Problem, "description": "Unavailable: Retry-After says when to come back"},
}


async def database_unavailable(_request: Request, _error: Exception) -> Response:
    # The reason is in the log; it may name hosts, which are nobody else's business.
    return JSONResponse(
        {"detail": "The database is unavailable, try again."}, 503, {"Retry-After": "1"}
    )


async def invalid_request(_request: Request, error: Exception) -> Response:
    """FastAPI's own answer less the input, which may be no valid JSON (NaN, half a surrogate)."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - for the type checker
    detail = [{key: problem[key] for key in ("type", "loc", "msg")} for problem in error.errors()]
    # Escaped to ASCII, since a location may be a field name with half a surrogate.
    return Response(json.dumps({"detail": detail}), 422, media_type="application/json")
