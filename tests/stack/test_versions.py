"""Which version a rollback means, by what runs and by what each image was built to replace."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ops.images import REPLACES, Image, Images
from ops.rollback import before
from ops.stack import Container, Stack, State
from tests.stack.stack import CHECKOUT, docker

REPOSITORY = f"berth-test-versions-{CHECKOUT}-api"
TAGS = [f"2026010{day}-120000" for day in (1, 2, 3)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Three versions, each built to replace the one before."""
    folder = tmp_path_factory.mktemp("versions")
    some = Stack.read().service("db")["image"]
    for tag, replaces in zip(TAGS, ["", *TAGS], strict=False):
        (folder / "Dockerfile").write_text(
            f"FROM {some}\nENV APP_VERSION={tag}\nLABEL {REPLACES}={replaces}\n"
        )
        docker("build", "--quiet", f"--tag={REPOSITORY}:{tag}", str(folder))
    yield Images(Stack("", {"services": {"api": {"image": f"{REPOSITORY}:current"}}}, {}))
    docker("image", "rm", *(f"{REPOSITORY}:{tag}" for tag in TAGS))


def replica(image: Image) -> Container:
    """Return a healthy replica of an image."""
    return Container(
        *("id", "api-1", "api", 1, image.id, "", State.HEALTHY, 0, 0),
        *(datetime.now(UTC), False, ""),
    )


@pytest.mark.parametrize(
    ("base", "others", "back_to"),
    [
        pytest.param(3, [], 2, id="all run one version"),
        pytest.param(2, [3], 2, id="a deploy was broken off"),
        pytest.param(3, [1], 1, id="a rollback was broken off"),
    ],
)
def test_rollback_finishes_what_was_broken_off(
    images: Images, base: int, others: list[int], back_to: int
) -> None:
    """Compose starts the version before for as long as the new one has not proven itself."""
    versions = [images.find(images.reference(tag)) for tag in TAGS]
    found = [one for one in versions if one]
    running = [replica(found[number - 1]) for number in (base, *others)]
    assert before(found[base - 1], running, images) == found[back_to - 1]
