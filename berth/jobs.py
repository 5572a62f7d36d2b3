"""Runs the app's jobs by the clock: `python -m berth.jobs`, with a crontab's lines in JOBS.

APScheduler has the clock. Here is what it has no word for: a job is a command, and how its last run
went stays known when this container is replaced.
"""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from prometheus_client import Gauge, start_http_server

from . import logs

logger = logging.getLogger(__name__)

# Of all replicas of this machine: it outlives this container.
FILE = Path("/run/berth/jobs.json")
METRICS_PORT = 9000
# What came due while this container was away for so long is caught up on.
_AWAY_SECONDS = 600
_LINE = re.compile(r"((?:\S+\s+){4}\S+)\s+(\S.*)")

FAILED = Gauge("berth_job_failed", "Whether the last run of a job failed", ["job_line"])
SUCCESS = Gauge("berth_job_last_success_timestamp_seconds", "When it last ended well", ["job_line"])


def parse(text: str) -> dict[str, CronTrigger]:
    """Return each line of a crontab and when it is due.

    Raises:
        ValueError: There is none, or one that cannot be used; says which and why.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        job = " ".join(line.split())
        if not job or job.startswith("#"):
            continue
        match = _LINE.fullmatch(job)
        if not match:
            raise ValueError(
                f"JOBS, line {number}: give five fields and a command, as in "
                "0 3 * * * python -m shop.report"
            )
        schedule = match[1]
        # To APScheduler 0 is Monday, to cron it is Sunday.
        if re.search(r"\d", re.sub(r"/\d+", "", schedule.split()[4])):
            raise ValueError(
                f"JOBS, line {number}: give days of the week as names, such as mon-fri"
            )
        try:
            found[job] = CronTrigger.from_crontab(schedule, timezone=UTC)
        except ValueError as error:
            raise ValueError(f"JOBS, line {number}: {error}") from None
    if not found:
        raise ValueError("JOBS has no line: give some, as in 0 3 * * * python -m shop.report")
    return found


class Runs:
    """How each job's last run went, in a file."""

    def __init__(self, file: Path, jobs: list[str]) -> None:
        self._file = file
        self._lock = threading.Lock()
        try:
            before = json.loads(file.read_text())
        except (OSError, ValueError):
            before = {}
        self.until = float(before.get("until", 0))
        self._ended: dict[str, float] = {}
        kept = before.get("jobs", {})
        self._jobs: dict[str, dict[str, Any]] = {job: kept.get(job, {}) for job in jobs}
        for one in self._jobs.values():
            if one.pop("running", None):
                one["failure"] = "was cut off"
        self._write()

    def note(self, job: str, **what: object) -> None:
        """Write down what is known of a job now."""
        with self._lock:
            self._jobs[job].update(what)
            self._write()

    def end(self) -> None:
        """Write down that nobody looks at the clock from here on."""
        with self._lock:
            self._ended = {"until": time.time()}
            self._write()

    def _write(self) -> None:
        for job, one in self._jobs.items():
            FAILED.labels(job).set(bool(one.get("failure")))
            SUCCESS.labels(job).set(one.get("succeeded", 0))
        beside = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        beside.write_text(json.dumps({"jobs": self._jobs, **self._ended}))
        beside.replace(self._file)


def run(job: str, runs: Runs) -> None:
    """Run a job's command."""
    match = _LINE.fullmatch(job)
    assert match  # noqa: S101 - for the type checker
    command = match[2]
    began = time.time()
    runs.note(job, started=began, running=True)
    logger.info("%s begins", command)
    code = subprocess.run(["sh", "-c", command], check=False).returncode
    ended = time.time()
    if code:
        logger.error("%s failed with exit code %d after %.1f s", command, code, ended - began)
        runs.note(job, ended=ended, running=False, failure=f"failed with exit code {code}")
    else:
        logger.info("%s ended well after %.1f s", command, ended - began)
        runs.note(job, ended=ended, running=False, failure="", succeeded=ended)


def was_missed(trigger: CronTrigger, until: float) -> bool:
    """Whether a job came due since nobody looked at the clock, not too long ago."""
    now = datetime.now(UTC)
    since = datetime.fromtimestamp(until, UTC)
    if now - since > timedelta(seconds=_AWAY_SECONDS):
        return False
    due = trigger.get_next_fire_time(None, since)
    return due is not None and due <= now


def main() -> None:
    """Run jobs until SIGTERM, and those under way to their end."""
    logs.configure(os.environ.get("LOG_LEVEL") or "INFO", os.environ.get("LOG_FORMAT") or "text")
    # It tells of each run twice over.
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    try:
        jobs = parse(os.environ.get("JOBS", ""))
    except ValueError as error:
        sys.exit(str(error))
    runs = Runs(FILE, list(jobs))
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    start_http_server(METRICS_PORT)
    scheduler = BackgroundScheduler(
        timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": 60}
    )
    for job, trigger in jobs.items():
        now = {"next_run_time": datetime.now(UTC)} if was_missed(trigger, runs.until) else {}
        scheduler.add_job(run, trigger, (job, runs), name=job, **now)
    scheduler.start()
    logger.info("Jobs by UTC: %s", "; ".join(jobs))
    ended.wait()
    scheduler.pause()
    runs.end()
    scheduler.shutdown()


if __name__ == "__main__":
    main()
