"""Debian's packages, from the mirror that apt already uses."""

import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from host.commands import UserError, output, run

# The release that stand-ins for images are built from: Python 3.14, PostgreSQL 18. While it is in
# testing its Release file may be past its date.
SUITE = "forky"
# The stable release whose Docker Engine (26) and Compose (2.26) are new enough; the one before has
# others that are not.
STABLE = "trixie"
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


def mirror(label: str = "Debian") -> str:
    """Return the address of a Debian mirror in apt's own configuration.

    Args:
        label: What its Release file calls it; `Debian-Security` is the one for security updates.

    Raises:
        UserError: apt names none.
    """
    targets = output(
        *("apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)"),
        "Created-By: Packages",
    )
    for line in (targets or "").splitlines():
        address, _, of = line.partition(" ")
        if of == f"Debian {label}":
            return address
    if targets == "" or targets is None:
        raise UserError("apt has no package lists yet: run `apt-get update`, then try again")
    raise UserError(f"apt's configuration names no {label} mirror to take packages from")


def candidate(package: str) -> str:
    """Return the version of a package that apt would install, or an empty string."""
    for line in (output("apt-cache", "policy", package) or "").splitlines():
        key, _, value = line.strip().partition(": ")
        if key == "Candidate" and value != "(none)":
            return value
    return ""


def update() -> None:
    """Fetch apt's package lists."""
    run(["apt-get", "-q", "update"], purpose="fetch apt's lists", environment=_QUIET)


def install(packages: Sequence[str]) -> None:
    """Install packages without what they merely recommend."""
    run(
        [
            *("apt-get", "-q", "install", "-y", "--no-install-recommends"),
            # A new machine updates itself at first.
            *("-o", "DPkg::Lock::Timeout=120", *packages),
        ],
        purpose=f"install {', '.join(packages)}",
        environment=_QUIET,
    )


def offer_from_stable(packages: Sequence[str]) -> None:
    """Let apt take these packages from `STABLE`, with their updates, and nothing else by itself.

    The priorities are those of ordinary packages and of backports, so they are in nobody's way once
    the host itself becomes that release.
    """
    sources = [(mirror(), STABLE)]
    with suppress(UserError):
        sources.append((mirror("Debian-Security"), f"{STABLE}-security"))
    Path("/etc/apt/sources.list.d/berth.sources").write_text(
        "\n".join(
            f"Types: deb\nURIs: {address}\nSuites: {suite}\nComponents: main\n"
            f"Signed-By: {KEYRING}\n"
            for address, suite in sources
        )
    )
    pins = ((names, suite) for _, suite in sources for names in ("*", " ".join(packages)))
    Path("/etc/apt/preferences.d/berth").write_text(
        "\n".join(
            f"Package: {names}\nPin: release n={suite}\n"
            f"Pin-Priority: {100 if names == '*' else 500}\n"
            for names, suite in pins
        )
    )
    update()
