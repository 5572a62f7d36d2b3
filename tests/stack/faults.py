"""The app's server with endpoints that take their time, and some that do it harm.

A stack gets it by tests/stack/compose.faults.yaml; it runs inside the replicas' containers.
"""

import asyncio
import ctypes
import os
import time

from fastapi import FastAPI

from app import main, server
from app.settings import Settings

FOREVER = 3600


def create_app(settings: Settings) -> FastAPI:
    app = main.create_app(settings)

    @app.get("/faults/sleep/{milliseconds}")
    async def sleep(milliseconds: int) -> int:
        await asyncio.sleep(milliseconds / 1000)
        return milliseconds

    @app.get("/faults/exit")
    async def end() -> None:
        os._exit(3)

    @app.get("/faults/memory")
    async def memory() -> None:
        hoard = []
        while True:
            hoard.append(b"x" * 2**20)

    @app.get("/faults/block")
    async def block() -> None:
        time.sleep(FOREVER)  # noqa: ASYNC251 - the loop stands still

    @app.get("/faults/hold-gil")
    async def hold_gil() -> None:
        ctypes.PyDLL(None).sleep(FOREVER)  # unlike CDLL, does not give up the GIL

    return app


if __name__ == "__main__":
    setattr(server, "create_app", create_app)  # noqa: B010 - so that main() is the real one
    server.main()
