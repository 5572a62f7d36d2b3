"""What a machine needs is found out from Compose, and from what is there."""

import pytest

from host import compose, images
from host.commands import Refusal


def test_images_to_pull_are_those_that_nobody_builds() -> None:
    """A service may use an image that another one builds; build arguments name images too."""
    configuration: dict[str, dict[str, dict[str, object]]] = {
        "services": {
            "api": {
                "image": "shop-api:current",
                "build": {"args": {"PYTHON_IMAGE": "python:3.14.8-slim", "APP_VERSION": "dev"}},
            },
            "migrate": {"image": "shop-api:current"},
            "db": {"image": "postgres:18.6"},
        }
    }
    assert images.references(configuration) == ["postgres:18.6", "python:3.14.8-slim"]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("postgres:18.6", ("postgres", "18.6")),
        ("traefik:v3.7.15", ("traefik", "3.7.15")),
        ("mirror.example:5000/library/python:3.14.8-slim", ("python", "3.14.8")),
        ("haproxy:3.2.26@sha256:0000", ("haproxy", "3.2.26")),
    ],
)
def test_recipe_and_version_come_from_the_reference(
    reference: str, expected: tuple[str, str]
) -> None:
    """Whatever mirror it names."""
    assert images.split(reference) == expected


def test_image_without_a_version_cannot_be_rebuilt() -> None:
    """`latest` says nothing about what to build."""
    with pytest.raises(Refusal, match="names no version"):
        images.split("postgres:latest")


@pytest.mark.parametrize(
    ("printed", "version"), [("2.40.3-3", (2, 40)), ("v2.24.0", (2, 24)), ("5.0.1", (5, 0))]
)
def test_compose_version_is_read_as_it_is_printed(printed: str, version: tuple[int, int]) -> None:
    """With or without a `v`, whoever packaged it."""
    assert compose.parse(printed) == version


def test_compose_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """2.23 misreads compose.yaml."""
    monkeypatch.setattr(compose, "output", lambda *_: "2.23.3")
    with pytest.raises(Refusal, match=r"2\.23\.3 is too old: Berth needs 2\.24"):
        compose.ensure()
