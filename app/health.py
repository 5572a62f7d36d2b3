import socket
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import BaseModel

from app.database import DatabaseUnavailableError
from app.lifecycle import Lifecycle
from app.schema import Schema
from app.settings import Settings

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    reason: str | None = None


class Version(BaseModel):
    version: str
    replica: str


async def get_schema(request: Request) -> Schema:
    schema: Schema = request.state.schema
    return schema


@router.get("/livez", response_model_exclude_none=True)
async def live() -> Health:
    """The event loop turns."""
    return Health(status="ok")


@router.get("/readyz", response_model_exclude_none=True, responses={503: {"model": Health}})
async def ready(
    request: Request, response: Response, schema: Annotated[Schema, Depends(get_schema)]
) -> Health:
    """This replica may be sent requests."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    if lifecycle.draining:
        reason: str | None = "draining"
    else:
        try:
            reason = await schema.problem()
        except DatabaseUnavailableError as error:
            reason = f"the database is unavailable: {error}"
    if reason is None:
        return Health(status="ok")
    response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Health(status="unavailable", reason=reason)


@router.get("/version")
async def version(request: Request) -> Version:
    """What answers, and which of the replicas it is."""
    settings: Settings = request.app.state.settings
    return Version(version=settings.app_version, replica=socket.gethostname())
