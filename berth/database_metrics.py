"""Tells Prometheus how a database elsewhere is: `python -m berth.database_metrics`.

By the names of PostgreSQL's own exporter, which can neither read DATABASE_URL_FILE nor follow it to
another host, and with what the app's role may see.
"""

import asyncio
import logging
import signal
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from . import logs
from .postgres import ERRORS, log_in, reason
from .schema import PATIENCE
from .settings import Settings, load_settings

logger = logging.getLogger(__name__)

PORT = 9187
# Prometheus waits for ten.
SECONDS = 5
OF_EACH = ("numbackends", "xact_commit", "xact_rollback")


class Database(Collector):
    """Asks anew for each look at it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last = ""

    def collect(self) -> Iterator[Metric]:
        """Yield what there is to say; of a database that does not answer, just that."""
        why = ""
        try:
            yield from asyncio.run(self._ask())
        except ERRORS as error:
            why = reason(error)
        if why != self._last:
            logger.warning("the database %s", f"does not answer: {why}" if why else "answers")
        self._last = why
        yield GaugeMetricFamily("pg_up", "Whether it answers", value=not why)

    async def _ask(self) -> list[Metric]:
        connection = await log_in(self._settings, SECONDS, server_settings=PATIENCE)
        try:
            most = await connection.fetchval("SELECT current_setting('max_connections')::float")
            rows = await connection.fetch(
                f"SELECT datname, {', '.join(OF_EACH)} FROM pg_stat_database WHERE datid <> 0"  # noqa: S608
            )
        finally:
            await connection.close(timeout=1)
        found: list[Metric] = [
            GaugeMetricFamily("pg_settings_max_connections", "Of all databases", value=most)
        ]
        for name in OF_EACH:
            family = GaugeMetricFamily(f"pg_stat_database_{name}", "Of each", labels=["datname"])
            for row in rows:
                family.add_metric([row["datname"]], row[name])
            found.append(family)
        return found


def main() -> None:
    """Answer until somebody says that it is enough."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    registry = CollectorRegistry()
    registry.register(Database(settings))
    start_http_server(PORT, registry=registry)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
