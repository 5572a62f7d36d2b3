"""Which requests maintenance keeps out."""

from ops.maintenance import rule
from tests.ops.test_doctor import read


def test_names_that_lead_to_the_app_are_closed_and_probes_are_not() -> None:
    """Where Berth's version is asked elsewhere, `/version` is the app's, and closed."""
    names = {"DOMAIN": "a.test", "DOMAINS": "b.test", "REDIRECT_DOMAINS": "old.test"}
    hosts = "(Host(`a.test`) || Host(`b.test`))"
    probes = "Path(`/livez`) || Path(`/readyz`) || Path(`/version`)"
    assert rule(read(**names), []) == f"{hosts} && !({probes})"
    elsewhere = probes.replace("/version", "/berth-version")
    assert rule(read(**names, VERSION_PATH="/berth-version"), []) == f"{hosts} && !({elsewhere})"
