"""Supply chain: everything is pinned, hashed where it can be, listed, and looked after."""

import json
import re
from pathlib import Path

import pytest

from host import images, stand_in
from tests.stack.stack import REPOSITORY, Stack, configuration

# What Berth is measured with and beside stays as it was measured.
NEVER_UPDATED = {"benchmarks", ".venv"}


def pinned(file: Path) -> dict[str, str]:
    """Return the versions in a requirements file that every machine installs."""
    lines = re.findall(r"^([\w.-]+)==(\S+) \\$", file.read_text(), re.MULTILINE)
    return {name.replace("_", "-"): version for name, version in lines}


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "berth/requirements.txt",
        "image/requirements.txt",
        "image/poetry.txt",
        "tests/requirements.txt",
    ],
)
def test_every_requirement_has_one_version_and_its_hashes(name: str) -> None:
    """And nothing says where to download it from."""
    text = (REPOSITORY / name).read_text()
    logical = [line for line in text.replace("\\\n", "").splitlines() if line[:1].isalpha()]
    assert logical
    assert [line for line in logical if "==" not in line or "--hash=sha256:" not in line] == []
    assert not re.search(r"https?://|--index-url|--find-links", text)


def test_every_image_has_an_exact_version() -> None:
    """No `latest`, no bare major version; a variable may name another."""
    found = images.references(configuration())
    assert found
    assert [one for one in found if not re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", one)] == []


def test_image_is_listed_whole(stack: Stack) -> None:
    """`make sbom` prints CycloneDX with what is pinned, what Debian brings."""
    bom = json.loads(stack.run("make", "sbom").stdout)
    assert (bom["bomFormat"], bom["specVersion"], bom["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bom["serialNumber"])
    purls = [component["purl"] for component in bom["components"]]
    assert len(purls) == len(set(purls))
    assert bom["dependencies"][0]["dependsOn"] == purls
    listed = {
        purl.removeprefix("pkg:pypi/").split("@")[0]: purl.split("@")[1]
        for purl in purls
        if purl.startswith("pkg:pypi/")
    }
    assert listed["fastapi"] == pinned(REPOSITORY / "requirements.txt")["fastapi"]
    pins = [pinned(REPOSITORY / one) for one in ("requirements.txt", "berth/requirements.txt")]
    assert set(listed) <= {"pip"}.union(*pins)
    assert [purl for purl in purls if purl.startswith("pkg:deb/debian/libc6@")]


def looked_after(ecosystem: str, pattern: str) -> list[Path]:
    """Return the files that Dependabot reads for an ecosystem."""
    text = (REPOSITORY / ".github/dependabot.yml").read_text()
    listed = re.search(rf"package-ecosystem: {ecosystem}\n\s+directories: \[(.+)\]", text)
    assert listed
    folders = (one.strip().strip("/") for one in listed[1].split(","))
    return [file for one in folders for file in REPOSITORY.glob(f"{one}/{pattern}".strip("/"))]


def test_updates_are_proposed_for_every_image() -> None:
    """Written as Dependabot finds and replaces it: an anchor, or a variable in FROM, hides it."""
    reference = r"([a-z0-9][a-z0-9./_-]*:\w[\w.-]*)"
    in_compose = re.compile(rf"^ +image:\s+(?:\${{\w+:-)?{reference}}}?(?=\s|$)", re.MULTILINE)
    in_dockerfile = re.compile(rf"^FROM\s+{reference}(?=\s|$)", re.MULTILINE)
    found = {
        reference
        for pattern, files in (
            (in_compose, looked_after("docker-compose", "compose*.yaml")),
            (in_dockerfile, looked_after("docker", "Dockerfile")),
        )
        for file in files
        for reference in pattern.findall(file.read_text())
    }
    assert set(images.references(configuration())) <= found
    pinned_elsewhere = {
        file
        for file in REPOSITORY.glob("**/Dockerfile")
        if in_dockerfile.search(file.read_text()) and not NEVER_UPDATED & set(file.parts)
    }
    assert pinned_elsewhere <= set(looked_after("docker", "Dockerfile"))


def test_updates_are_proposed_for_every_package() -> None:
    """Wherever there are versions; an app that a test brings may name none."""
    found = {
        file
        for file in REPOSITORY.glob("**/requirements.txt")
        if not NEVER_UPDATED & set(file.parts) and "==" in file.read_text()
    }
    assert found == set(looked_after("pip", "requirements.txt"))


def test_no_version_of_an_image_is_repeated() -> None:
    """Settings to copy leave them out, or what is copied would outlive every update."""
    settings = (REPOSITORY / ".env.example").read_text()
    assert re.findall(r"^\w+_IMAGE=", settings, re.MULTILINE) == []
    versions = {stand_in.split(one)[1] for one in images.references(configuration())}
    assert [version for version in versions if version in settings] == []
