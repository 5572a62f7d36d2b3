"""The documentation page works in a real browser that can reach nobody else."""

import re

import pytest

from tests.stack.inside import attack
from tests.stack.stack import Stack

BROWSER = [
    *("chromium-headless-shell", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--user-data-dir=/tmp/browser", "--ignore-certificate-errors"),
    # Console messages, among them each breach of the page's policy, go to standard error.
    *("--enable-logging=stderr", "--virtual-time-budget=10000", "--dump-dom"),
]


@pytest.fixture(scope="module")
def page(stack: Stack) -> tuple[str, str]:
    """What the browser made of /docs, and what it had to say about it."""
    # Every other name leads to a port where nobody listens.
    rules = f"--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE {stack.domain}"
    said = attack(stack, *BROWSER, rules, f"https://{stack.domain}/docs")
    return said.stdout, said.stderr


def test_browser_shows_every_operation(page: tuple[str, str], stack: Stack) -> None:
    """Rendered by Swagger UI from the schema, with no help from a CDN."""
    shown = set(re.findall(r'class="opblock opblock-(\w+)"', page[0]))
    assert shown == {"get", "post", "put", "delete"}
    for path in stack.get("/openapi.json").json()["paths"]:
        assert f'data-path="{path}"' in page[0]


def test_page_keeps_its_policy_and_asks_nobody_else(page: tuple[str, str], stack: Stack) -> None:
    """The browser refused nothing and missed nothing; every address is this server's own."""
    assert "Content Security Policy" not in page[1]
    assert "CONSOLE" not in page[1]
    loaded = re.findall(r'(?:src|href)="((?:https?:)?//[^"]*)"', page[0])
    assert [one for one in loaded if "script" in one or ".css" in one or ".js" in one] == []
    assert stack.get("/docs").headers["Content-Security-Policy"].startswith("default-src 'none'; ")
