"""Debian's packages, from the mirror that apt already uses."""

import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path

from host.commands import Refusal, output, run

# The release whose packages are new enough: Docker Engine 28, Compose 2.40, Python 3.14,
# PostgreSQL 18. While it is in testing its Release file may be past its date.
SUITE = "forky"
UNDATED = "Acquire::Check-Valid-Until=false"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def release() -> dict[str, str]:
    """Return the fields of /etc/os-release; empty where there is none (macOS, say)."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def is_installable() -> bool:
    """Whether this program can install packages: Debian or Ubuntu, as root."""
    family = f"{release().get('ID', '')} {release().get('ID_LIKE', '')}".split()
    return os.geteuid() == 0 and "debian" in family and shutil.which("apt-get") is not None


def mirror() -> str:
    """Return the address of the Debian mirror in apt's own configuration.

    Raises:
        Refusal: apt names none.
    """
    targets = output(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"
    )
    for line in (targets or "").splitlines():
        address, _, origin = line.partition(" ")
        if origin == "Debian":
            return address
    if targets == "" or targets is None:
        raise Refusal("apt has no package lists yet: run `apt-get update`, then try again")
    raise Refusal("apt's configuration names no Debian mirror to take packages from")


def candidate(package: str) -> str:
    """Return the version of a package that apt would install, or an empty string."""
    for line in (output("apt-cache", "policy", package) or "").splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            return value
    return ""


def update() -> None:
    """Fetch apt's package lists."""
    run(["apt-get", "-o", UNDATED, "-q", "update"], purpose="fetch apt's lists", environment=_QUIET)


def install(packages: Sequence[str]) -> None:
    """Install packages without what they merely recommend."""
    run(
        ["apt-get", "-q", "install", "-y", "--no-install-recommends", *packages],
        purpose=f"install {', '.join(packages)}",
        environment=_QUIET,
    )


def offer_from_suite(packages: Sequence[str]) -> None:
    """Let apt see `SUITE`, for these packages alone: nothing else is upgraded to it."""
    Path("/etc/apt/sources.list.d/berth.sources").write_text(
        f"Types: deb\nURIs: {mirror()}\nSuites: {SUITE}\nComponents: main\n"
        f"Signed-By: {KEYRING}\nCheck-Valid-Until: no\n"
    )
    Path("/etc/apt/preferences.d/berth").write_text(
        f"Package: *\nPin: release n={SUITE}\nPin-Priority: -1\n\n"
        f"Package: {' '.join(packages)}\nPin: release n={SUITE}\nPin-Priority: 990\n"
    )
    update()
