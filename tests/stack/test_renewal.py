"""Certificates renew by themselves."""

import datetime
from pathlib import Path

from tests.stack.stack import poll, running_with_ca


def test_certificate_renews_by_itself(tmp_path: Path) -> None:
    """An authority that signs for 21 minutes sees Traefik again before it is down to 20."""
    with running_with_ca(
        "berth-test-renewal", tmp_path, scale=1, certificate_seconds=21 * 60
    ) as stack:
        first = stack.certificate()
        valid = first.not_valid_after_utc - first.not_valid_before_utc
        assert valid < datetime.timedelta(hours=1)
        poll(
            "a renewed certificate",
            lambda: stack.certificate().serial_number != first.serial_number,
            seconds=240,
        )
        assert stack.answers()
