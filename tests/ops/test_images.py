from datetime import UTC, datetime
from typing import Any

import pytest

from ops.images import REPLACES, Image, explain, from_inspect, new_tag, renewed_tag, tags_in

REPOSITORY = "berth-api"


def image(version: str = "1", layer: str = "sha256:a", **labels: str) -> Image:
    found: dict[str, Any] = {
        "Id": f"sha256:{version}",
        "Created": "2026-11-21T21:41:29.206678335Z",
        "RepoTags": [f"{REPOSITORY}:current", f"{REPOSITORY}:20261121-214129-0123abc"],
        "RootFS": {"Type": "layers", "Layers": [layer]},
        "Config": {"Env": ["PATH=/bin", f"APP_VERSION={version}"], "Labels": labels or None},
    }
    return from_inspect(found, REPOSITORY)


def test_only_our_own_tags_count_and_the_newest_comes_first() -> None:
    """`current`, tags of other repositories and tags by hand are left alone."""
    references = [
        "berth-api:current",
        "berth-api:20261121-214129",
        "berth-api:20261122-000000-0123abc-dirty",
        "other-api:20261123-000000",
        "berth-api:20261121-214129-mine",
    ]
    assert tags_in(references, REPOSITORY) == [
        "20261122-000000-0123abc-dirty",
        "20261121-214129",
    ]


def test_a_new_tag_is_one_of_our_own() -> None:
    """Whatever state git is in."""
    tag = new_tag(datetime(2026, 11, 21, 21, 41, 29, tzinfo=UTC))
    assert tags_in([f"{REPOSITORY}:{tag}"], REPOSITORY) == [tag]
    assert tag.startswith("20261121-214129")


def test_a_version_is_no_content() -> None:
    """Two builds of one tree differ in their version and in what they replace."""
    assert image("1").has_content_of(image("2", **{REPLACES: "20261121-214129"}))


@pytest.mark.parametrize("commit", ["", "-0123abc", "-0123abc-dirty"])
def test_the_tag_of_a_renewed_image_names_the_apps_commit(commit: str) -> None:
    """Of which it still is; only the time is another."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert renewed_tag(now, f"20261121-214129{commit}") == f"20261122-000000{commit}"


def test_a_layer_or_a_label_is_content() -> None:
    """A changed file or a changed Dockerfile is worth a deploy."""
    assert not image().has_content_of(image(layer="sha256:b"))
    assert not image().has_content_of(image(label="x"))


def test_a_build_for_another_processor_says_what_it_lacks() -> None:
    """As BuildKit has it where nothing emulates that one."""
    log = "#9 [tools 1/1] RUN python -Im venv /tools\n#9 0.190 exec /bin/sh: exec format error"
    assert explain(log).endswith("install qemu-user-static, or build on a machine of their kind")
