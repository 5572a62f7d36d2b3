"""The status page: off unless asked for, behind a login, and right in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from ops import usage
from tests.stack.browser import Browser, browsing
from tests.stack.stack import (
    REPOSITORY,
    Stack,
    docker,
    every_second,
    poll,
    printed,
    running_with_ca,
)

USER = "berth"
# Width, height and theme.
VIEWS = {"dark": (1440, 900, "dark"), "light": (1440, 900, "light"), "phone": (360, 740, "dark")}
PAGE = {"dark": "rgb(16, 21, 28)", "light": "rgb(244, 245, 247)"}
DASHBOARD = REPOSITORY / "metrics/grafana/dashboards/berth.json"
# Of each chart: how many points it was given, and how many pixels it drew in colour.
CHARTS = """[...document.querySelectorAll("figure")].map((figure) => {
  const canvas = figure.querySelector("canvas");
  const {width, height} = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const {data} = copy.getImageData(0, 0, width, height);
  let pixels = 0; // those that are neither transparent nor about grey
  for (let i = 0; i < data.length; i += 4) {
    const [red, green, blue, alpha] = data.slice(i, i + 4);
    if (alpha > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 40) pixels++;
  }
  return {title: figure.querySelector("b").textContent, pixels, ...figure.dataset};
})"""
FIGURES = """[...document.querySelectorAll("#figures > div")].map((figure) => ({
  title: figure.querySelector("dt").textContent,
  shown: figure.querySelector("dd").textContent,
  ...figure.dataset,
}))"""


def test_there_is_no_page_unless_it_is_asked_for(stack: Stack) -> None:
    """The app answers, which knows nothing of it."""
    for path in ("/status", "/status/", "/status/page.js", "/status/api/v1/query?query=up"):
        answer = stack.get(path)
        assert answer.status_code == requests.codes.not_found
        assert "WWW-Authenticate" not in answer.headers
    done = stack.run("python3", "-m", "ops.status", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("berth: the status page is off: set STATUS=on")


@pytest.mark.parametrize(
    ("status", "profiles", "says"),
    [("yes", "metrics", "STATUS=yes: on or off"), ("on", "offsite", "add metrics to")],
)
def test_setting_that_shows_nothing_is_refused(
    stack: Stack, status: str, profiles: str, says: str
) -> None:
    """Before anything is started or changed."""
    settings = [f"--env=STATUS={status}", f"--env=PROFILES={profiles}"]
    assert says in stack.compose("run", "--rm", "--no-deps", *settings, "secrets", check=False)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas with the page, of code that may be changed."""
    scratch = tmp_path_factory.mktemp("status")
    with running_with_ca(
        "berth-test-status",
        scratch,
        scale=2,
        folder=every_second(scratch),
        API_REPLICAS="2",
        COMPOSE_PROFILES="metrics",
        STATUS="on",
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def password(watched: Stack) -> str:
    """What `make status` says it is."""
    address, *login = watched.run("python3", "-m", "ops.status").stdout.split()
    assert address == f"https://{watched.domain}:{watched.https_port}/status/"
    assert login[:-1] == ["user", USER, "password"]
    return login[-1]


@pytest.fixture(scope="module")
def client(watched: Stack, password: str) -> Iterator[requests.Session]:
    """Somebody who has logged in."""
    with watched.session() as session:
        session.auth = (USER, password)
        yield session


def ask(
    watched: Stack, client: requests.Session, query: str, **parameters: str
) -> list[dict[str, Any]]:
    """Return what Prometheus answers, by the way that the page goes."""
    path = watched.url("/status/api/v1/query")
    answer = client.get(path, params={"query": query, **parameters}, timeout=10)
    assert answer.status_code == requests.codes.ok, answer.text
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


@pytest.mark.parametrize("path", ["/status/", "/status/page.js", "/status/api/v1/query?query=up"])
def test_only_who_knows_the_password_gets_in(
    watched: Stack, client: requests.Session, password: str, path: str
) -> None:
    """To the page, its files and its data."""
    guesses = [None, (USER, ""), (USER, USER), ("admin", password), (USER, password[:-1])]
    for guess in guesses:
        with watched.session() as session:
            answer = session.get(watched.url(path), auth=guess, timeout=10)
        assert answer.status_code == requests.codes.unauthorized
    answer = client.get(watched.url(path), timeout=10, headers={"Origin": "https://other.test"})
    assert answer.status_code == requests.codes.ok
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src")
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *("config", "metrics", "-/reload", "user/page.js", "uplot/README.md"),
        *("api/v1/status/config", "api/v1/targets", "api/v1/admin/tsdb/snapshot"),
    ],
)
def test_nothing_else_of_prometheus_is_served(
    watched: Stack, client: requests.Session, path: str
) -> None:
    """The app answers, as for every path that is not there."""
    for method in ("GET", "POST"):
        answer = client.request(method, watched.url(f"/status/{path}"), timeout=10)
        assert answer.status_code == requests.codes.not_found
        assert answer.json()["detail"] == "Not Found"


def test_the_password_shows_nowhere(watched: Stack, password: str) -> None:
    """Neither in inspect nor in a log nor to Traefik, which has a hash of it."""
    project = f"--filter=label=com.docker.compose.project={watched.project}"
    shown = docker("inspect", *docker("ps", "--all", "--quiet", project).split())
    shown += watched.compose("logs") + watched.compose("config")
    (traefik,) = watched.containers("traefik")
    volumes = f"--volumes-from={traefik['Id']}:ro"
    image = f"{watched.project}-api:current"
    files = "cat /run/status/users; cat /run/status/password; true"
    known = printed(volumes, "--user=65532", image, "sh", "-c", files)
    assert "berth:$apr1$" in known
    assert password not in shown + known


@pytest.fixture(scope="module")
def browser(watched: Stack, client: requests.Session, password: str) -> Iterator[Browser]:
    """The page, after a login, with some load and a deploy behind it."""
    # At two or more of the moments that the page asks for, which are 5 s apart.
    versions = "count(count_over_time((count by (version) (app_info))[10m:5s]) > 1)"

    def are_seen(count: int) -> bool:
        for path in ("/items", "/nothing"):
            watched.get(path)
        return [one["value"][1] for one in ask(watched, client, versions)] == [str(count)]

    poll("the first version in Prometheus", lambda: are_seen(1), seconds=60)
    with (watched.folder / "app/__init__.py").open("a") as code:
        code.write("# the next version\n")
    watched.run("make", "deploy", "SURGE=2")
    poll("the second one", lambda: are_seen(2), seconds=60)
    with browsing(watched, (USER, password)) as browser:
        browser.show(*VIEWS["dark"])
        browser.open(f"https://{watched.domain}/status/#15m")
        browser.wait_for("document.querySelectorAll('canvas').length === 9")
        browser.wait_for(f"{CHARTS}.every(({{pixels, deploys}}) => pixels && deploys === '1')")
        yield browser


@pytest.mark.parametrize("view", VIEWS)
def test_every_chart_is_drawn_and_nothing_overflows(
    browser: Browser, view: str, tmp_path: Path
) -> None:
    """In both themes, and on a phone."""
    width, height, theme = VIEWS[view]
    browser.show(width, height, theme)
    fits = "[...document.querySelectorAll('canvas')].every((one) => one.clientWidth < innerWidth)"
    browser.wait_for(f"innerWidth === {width} && {fits}")
    charts = browser.evaluate(CHARTS)
    assert len(charts) == 9
    for chart in charts:
        assert chart["pixels"] > 0, chart
        assert chart["deploys"] == "1", chart
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    background = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(background) == PAGE[theme]
    browser.screenshot(tmp_path / "page.png")


def test_figures_are_what_prometheus_answers(
    browser: Browser, watched: Stack, client: requests.Session
) -> None:
    """Each of them, asked again for the same time; and those that can be known beforehand."""
    figures = {one["title"]: one for one in browser.evaluate(FIGURES)}
    assert len(figures) == 12
    for figure in figures.values():
        answer = ask(watched, client, figure["query"], time=figure["time"])
        expected = [float(one["value"][1]) for one in answer]
        assert [float(one) for one in [figure["value"]] if one] == expected, figure
    assert figures["Replicas up"]["shown"] == "2"
    assert figures["Certificate ends in"]["shown"] == "89 d"
    assert figures["Age of backup"]["shown"] == "not set up"
    assert float(figures["Errors, 4xx"]["value"]) > 0
    assert re.fullmatch(r"[\d.]+ m?s", figures["Response, p99"]["shown"])


def test_page_asks_nobody_else_and_has_nothing_to_complain_of(
    browser: Browser, watched: Stack
) -> None:
    """No breach of its policy, no error, no other host."""
    assert browser.complaints == []
    asked = {urlsplit(url) for url in browser.asked}
    assert {url.hostname for url in asked} == {watched.domain}
    assert {url.path.split("/")[1] for url in asked} == {"status"}


def test_another_range_is_asked_for_at_once(browser: Browser) -> None:
    """By the keyboard, too: the choices are a group of radio buttons."""
    browser.evaluate("document.querySelector('#ranges :checked').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    browser.call("Input.dispatchKeyEvent", type="rawKeyDown", **key)
    browser.wait_for("location.hash === '#1h'")
    poll(
        "a question about an hour",
        lambda: browser.evaluate("true") and any("&step=30" in url for url in browser.asked),
    )


def test_every_query_of_grafana_and_of_advise_is_answered(
    watched: Stack, client: requests.Session
) -> None:
    """With series, but for backups, which this stack does not make."""
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    targets += [annotation["target"] for annotation in dashboard["annotations"]["list"]]
    queries = [target["expr"].replace("$__rate_interval", "1m") for target in targets]
    assert len(queries) > 20
    for query in [*queries, *usage.FIGURES.values()]:
        if "berth:backup" not in query:
            # A look back that takes a value a minute finds none in the first.
            poll(query, lambda query=query: ask(watched, client, query), seconds=90)  # type: ignore[misc]


def test_alert_that_fires_is_named(
    browser: Browser, watched: Stack, client: requests.Session
) -> None:
    """With what it is about and the way out."""
    watched.compose("stop", "postgres-exporter")
    fires = 'ALERTS{alertname="TargetDown",alertstate="firing",job="postgres"}'
    poll("the alert", lambda: ask(watched, client, fires), seconds=60)
    browser.evaluate("document.querySelector('[value=\"6h\"]').click()")
    says = "document.querySelector('#alerts').textContent"
    browser.wait_for(f"/postgres .* gives no metrics: `docker compose ps/.test({says})")


def test_total_outage_shows_as_errors(
    browser: Browser, watched: Stack, client: requests.Session
) -> None:
    """On the page and in an alert, though no replica is there that would count its failures."""
    gone = 'the service \\"api@docker\\" does not exist'
    before = watched.logs("traefik").count(gone)
    watched.compose("stop", "api")
    # What arrives while Traefik still learns of the last one's end is tried there for seconds.
    poll("Traefik's word", lambda: watched.logs("traefik").count(gone) > before)
    fires = 'ALERTS{alertname="ErrorRate",alertstate="firing"}'

    def is_seen() -> bool:
        assert watched.get("/items").status_code == requests.codes.service_unavailable
        return bool(ask(watched, client, fires))

    poll("the alert", is_seen, seconds=60)
    browser.evaluate("document.querySelector('[value=\"1h\"]').click()")
    shown = f"{FIGURES}.find(({{title}}) => title === 'Errors, 5xx')"
    browser.wait_for(f"{shown}.level === 'bad'")
    assert float(browser.evaluate(f"{shown}.value")) > 0.01
    says = "document.querySelector('#alerts').textContent"
    browser.wait_for(f"/of the requests fail/.test({says}) && /No replica of api/.test({says})")
    watched.up(scale=2)


def test_page_says_when_prometheus_is_away(browser: Browser, watched: Stack) -> None:
    """And shows data again once it is back."""
    watched.compose("stop", "prometheus")
    browser.evaluate("document.querySelector('[value=\"15m\"]').click()")
    says = browser.wait_for("document.querySelector('#trouble').textContent")
    assert says.startswith("Prometheus does not answer (50")
    watched.compose("start", "prometheus")
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    browser.wait_for(f"{look} && document.body.dataset.state === 'shown'")
    assert browser.evaluate("document.querySelector('#trouble').hidden")
