"""The images that Compose and the Dockerfile name: pulled, or else built from packages."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from host import debian
from host.commands import Refusal, allowed, output, run, say

_RECIPES = Path(__file__).parent / "recipes"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
# As in the official image, apt keeps nothing that would swell every layer.
_NO_CACHE = 'Dir::Cache { pkgcache ""; srcpkgcache ""; }; APT::Keep-Downloaded-Packages "false";'
BASE = f"debian:{debian.SUITE}-slim"


def named_by_compose() -> list[str]:
    """Return the references of the images that `docker compose` would have to pull.

    Raises:
        Refusal: Compose does not accept the configuration; its own words say why.
    """
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refusal(f"Compose refuses the configuration: {done.stderr.strip()}")
    return references(json.loads(done.stdout))


def references(configuration: dict[str, dict[str, dict[str, object]]]) -> list[str]:
    """Return what a Compose configuration pulls: images, and build arguments named `*_IMAGE`."""
    found: set[str] = set()
    built: set[str] = set()
    for service in configuration["services"].values():
        found.add(str(service["image"]))
        build = service.get("build")
        if isinstance(build, dict):
            built.add(str(service["image"]))
            arguments = build.get("args", {})
            found.update(str(value) for name, value in arguments.items() if name.endswith("_IMAGE"))
    return sorted(found - built)


def ensure(wanted: Iterable[str]) -> None:
    """Make sure that images are on this machine.

    Args:
        wanted: Image references with a tag, such as `postgres:18.4`.

    Raises:
        Refusal: One is neither here, nor to be pulled, nor to be built.
    """
    for reference in wanted:
        if not _is_here(reference) and not _pull(reference):
            _build(reference)


def _is_here(reference: str) -> bool:
    return output("docker", "image", "inspect", "--format", "{{.Id}}", reference) is not None


def _pull(reference: str) -> bool:
    return allowed("HOST_PULL") and output("docker", "pull", "--quiet", reference) is not None


def _build(reference: str) -> None:
    name, tag = split(reference)
    recipe = _RECIPES / name
    if not allowed("HOST_BUILD"):
        raise Refusal(f"the image {reference} is not here, cannot be pulled, and HOST_BUILD=no")
    if not recipe.is_dir():
        raise Refusal(
            f"the image {reference} cannot be pulled, and host/recipes has no {name} to build"
        )
    ensure_base()
    say(f"no registry yields {reference}: building it from Debian's and PyPI's packages")
    run(
        [
            "docker",
            "build",
            "--quiet",
            f"--tag={reference}",
            f"--label=berth.built-for={reference}",
            f"--build-arg=BASE={BASE}",
            f"--build-arg=VERSION={tag}",
            str(recipe),
        ],
        purpose=f"build {reference}",
    )


def split(reference: str) -> tuple[str, str]:
    """Split an image reference into its last name and the version that starts its tag.

    >>> split("example.org/library/postgres:18.4-trixie")
    ('postgres', '18.4')

    Raises:
        Refusal: The tag does not start with a version.
    """
    name, _, tag = reference.rpartition("/")[2].partition(":")
    version = re.match(r"v?(\d+(?:\.\d+)*)", tag.partition("@")[0])
    if version is None:
        raise Refusal(f"the image {reference} cannot be pulled, and its tag names no version")
    return name, version[1]


def ensure_base() -> None:
    """Make sure that the Debian image that the recipes start from is here.

    Raises:
        Refusal: It cannot be pulled, and this machine cannot build it.
    """
    if _is_here(BASE) or _pull(BASE):
        return
    if not debian.is_installable():
        raise Refusal(
            "no registry answers, and images can only be built on Debian or Ubuntu as root"
        )
    say(f"no registry yields {BASE}: building it with mmdebstrap")
    if output("mmdebstrap", "--version") is None:
        debian.update()
        debian.install(["mmdebstrap"])
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "base.tar"
        run(
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--aptopt={debian.UNDATED.replace('=', ' ')}",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/locale/*",
                # Package installs inside a build trust whom this machine trusts: as the bundle,
                # and as an addition for when ca-certificates is installed and writes it anew.
                "--customize-hook=mkdir -p $1/etc/ssl/certs $1/usr/local/share/ca-certificates",
                f"--customize-hook=upload {_TRUSTED} {_TRUSTED}",
                f"--customize-hook=upload {_TRUSTED} /usr/local/share/ca-certificates/host.crt",
                f"--customize-hook=echo '{_NO_CACHE}' > $1/etc/apt/apt.conf.d/no-cache",
                "--customize-hook=rm -rf $1/var/lib/apt/lists $1/var/cache/apt/*.bin",
                debian.SUITE,
                str(tree),
                f"deb [signed-by={debian.KEYRING}] {debian.mirror()} {debian.SUITE} main",
            ],
            purpose=f"build {BASE}",
        )
        run(["docker", "import", "--change=CMD bash", str(tree), BASE], purpose=f"import {BASE}")
