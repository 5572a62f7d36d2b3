"""Its tasks: each is written to the database when it is done."""

import asyncio
import os
from typing import Any, ClassVar

import asyncpg
from arq.connections import RedisSettings

VALKEY = RedisSettings(host="valkey")


async def work(ctx: dict[str, Any], number: int) -> None:
    # Some are under way whenever a worker has to go.
    await asyncio.sleep(2 if number % 100 == 0 else 0)
    await ctx["pool"].execute("INSERT INTO done VALUES ($1)", number)


async def startup(ctx: dict[str, Any]) -> None:
    ctx["pool"] = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=0, max_size=4)


class Settings:
    redis_settings = VALKEY
    functions: ClassVar = [work]
    on_startup = startup
    max_jobs = 50
    keep_result = 0
    # What a worker had begun when it was killed is begun anew ten seconds after this.
    job_timeout = 5
