"""`make sbom`: what is in the app's image, Debian's packages and Python's, as CycloneDX 1.6."""

import hashlib
import json
import sys
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from host.commands import UserError, carried_out
from ops.docker import docker
from ops.images import Image, Images
from ops.stack import Stack

# Asked of the image itself.
_PYTHON = """
import json
from importlib.metadata import distributions
print(json.dumps([
    [one.name, one.version, one.metadata.get("License-Expression") or ""]
    for one in distributions()
]))
"""
_DEBIAN = "dpkg-query --show --showformat='${Package}\\t${Version}\\t${Architecture}\\n'"
_RELEASE = ". /etc/os-release && echo ${VERSION_CODENAME:-unknown}"


def contents(image: str) -> list[dict[str, Any]]:
    """Return the components of an image, by what its package managers say."""
    run = ("run", "--rm", "--network=none", "--entrypoint")
    release = docker(*run, "sh", image, "-c", _RELEASE)
    debian = docker(*run, "sh", image, "-c", _DEBIAN)
    python = json.loads(docker(*run, "python", image, "-c", _PYTHON))
    found = [_debian(line, release) for line in debian.splitlines()]
    found += [_python(*one) for one in python]
    # What the app brings as well as Berth, in the same version, is listed once.
    found = list({one["bom-ref"]: one for one in found}.values())
    return sorted(found, key=lambda one: str(one["bom-ref"]))


def _debian(line: str, release: str) -> dict[str, Any]:
    name, version, architecture = line.split("\t")
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}&distro={release}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _python(name: str, version: str, licence: str) -> dict[str, Any]:
    normal = name.lower().replace("_", "-").replace(".", "-")
    purl = f"pkg:pypi/{normal}@{quote(version)}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return {**component, "licenses": [{"expression": licence}]} if licence else component


def document(image: Image, repository: str, now: datetime) -> dict[str, Any]:
    """Return the whole list; of the same image on another day, only its date is another."""
    components = contents(image.id)
    digest = hashlib.sha256(image.id.encode()).digest()[:16]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.UUID(bytes=digest, version=4).urn,
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "component": {
                "type": "container",
                "bom-ref": image.id,
                "name": repository,
                "version": image.name,
            },
        },
        "components": components,
        "dependencies": [{"ref": image.id, "dependsOn": [one["bom-ref"] for one in components]}],
    }


def print_list() -> None:
    """Print the list for the image that Compose runs.

    Raises:
        UserError: There is none yet.
    """
    images = Images(Stack.read())
    image = images.current()
    if image is None:
        raise UserError("there is no image yet: `make up` builds one")
    print(json.dumps(document(image, images.repository, datetime.now(UTC)), indent=2))


if __name__ == "__main__":
    sys.exit(carried_out(print_list))
