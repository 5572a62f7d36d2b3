"""Supply chain: everything is pinned, hashed where it can be, listed, and looked after."""

import json
import re
from pathlib import Path

import pytest

from tests.stack.stack import REPOSITORY, Stack


def pinned(file: Path) -> dict[str, str]:
    """Return the versions in a requirements file that every machine installs."""
    lines = re.findall(r"^([\w.-]+)==(\S+) \\$", file.read_text(), re.MULTILINE)
    return {name.replace("_", "-"): version for name, version in lines}


@pytest.mark.parametrize("name", ["requirements.txt", "tests/requirements.txt"])
def test_every_requirement_has_one_version_and_its_hashes(name: str) -> None:
    """And nothing says where to download it from."""
    text = (REPOSITORY / name).read_text()
    logical = [line for line in text.replace("\\\n", "").splitlines() if line[:1].isalpha()]
    assert logical
    assert [line for line in logical if "==" not in line or "--hash=sha256:" not in line] == []
    assert not re.search(r"https?://|--index-url|--find-links", text)


def test_every_image_has_an_exact_version(stack: Stack) -> None:
    """No `latest`, no bare major version; a variable may name another."""
    services = json.loads(stack.compose("config", "--format=json"))["services"]
    images = {s["image"] for n, s in services.items() if n not in {"api", "migrate", "pebble"}}
    images.add(services["api"]["build"]["args"]["PYTHON_IMAGE"])
    assert [one for one in images if not re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", one)] == []


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
    assert set(listed) <= set(pinned(REPOSITORY / "requirements.txt")) | {"pip"}
    assert [purl for purl in purls if purl.startswith("pkg:deb/debian/libc6@")]


def test_updates_are_proposed_for_packages_and_images() -> None:
    """Dependabot knows every place where a version is pinned."""
    text = (REPOSITORY / ".github/dependabot.yml").read_text()
    ecosystems = set(re.findall(r"package-ecosystem: (\S+)", text))
    assert ecosystems == {"pip", "docker", "docker-compose"}
    assert "directories: [/, /tests]" in text
    # The peers that Berth is measured beside stay as they were measured.
    found = {one.parent.relative_to(REPOSITORY) for one in REPOSITORY.glob("**/requirements.in")}
    assert {one for one in found if "peers" not in one.parts} == {Path(), Path("tests")}
