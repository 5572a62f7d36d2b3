"""Which requests maintenance keeps out."""

from ops.maintenance import rules
from tests.ops.test_doctor import read


def test_names_that_lead_to_the_app_are_closed_and_probes_are_not() -> None:
    """Where Berth's version is asked elsewhere, `/version` is the app's, and closed."""
    names = {"DOMAIN": "a.test", "DOMAINS": "b.test,*.b.test", "REDIRECT_DOMAINS": "old.test"}
    hosts = "(Host(`a.test`) || Host(`b.test`))"
    below = r"(HostRegexp(`(?i)^[^.]+\.b\.test\z`))"
    probes = "Path(`/livez`) || Path(`/readyz`) || Path(`/version`)"
    assert rules(read(**names), []) == (f"{hosts} && !({probes})", f"{below} && !({probes})")
    elsewhere = probes.replace("/version", "/berth-version")
    found = rules(read(**names | {"DOMAINS": "b.test", "VERSION_PATH": "/berth-version"}), [])
    assert found == (f"{hosts} && !({elsewhere})", "")
