"""The images that Compose and Dockerfiles name: pulled, or else replaced by stand-ins.

A registry's refusal (no such tag, a rate limit, a log-in) is an error in its own words. Stand-ins
are built only where no registry has ever answered: not where it cannot be reached, and not by a
machine that has other images of the stack from that registry, which is only cut off for now.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from host import registry, stand_in
from host.app import prepared
from host.commands import UserError, allowed, output, say

_FROM = re.compile(
    r"^FROM\s+(?:--platform=\S+\s+)?(\S+)(?:\s+AS\s+(\S+))?", re.IGNORECASE | re.MULTILINE
)
_ARG = re.compile(r"(?m)^ARG\s+(\w+)=(\S+)")
# A label: the name, with a digest, under which the app's image was pulled.
ORIGIN = "berth.origin"
# For an image that is not here, a registry may be slow; one that has a stand-in can wait.
_PATIENCE = 30
_HASTE = 2


def named_by_compose(*, to_build: bool = False) -> list[str]:
    """Return the references of the images that `docker compose` would have to pull.

    Args:
        to_build: Whether it is only to build, and starts nothing.

    Raises:
        UserError: Compose does not accept the configuration; its own words say why.
    """
    done = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UserError(f"Compose refuses the configuration: {done.stderr.strip()}")
    configuration = json.loads(done.stdout)
    return bases_in(configuration) if to_build else references(configuration)


def references(configuration: dict[str, Any]) -> list[str]:
    """Return what a Compose configuration pulls, for its services and to build on."""
    services = configuration["services"].values()
    built = {str(one["image"]) for one in services if one.get("build")}
    found = {str(one["image"]) for one in services} - built
    # What was built elsewhere comes from there again.
    is_pulled = os.environ.get("IMAGE") or any(stand_in.label(one, ORIGIN) for one in built)
    return sorted(found if is_pulled else found.union(bases_in(configuration)))


def bases_in(configuration: dict[str, Any]) -> list[str]:
    """Return what the services of a Compose configuration are built on."""
    builds = [one["build"] for one in configuration["services"].values() if one.get("build")]
    return sorted({base for build in builds for base in _bases_of(prepared(build))})


def _bases_of(build: dict[str, Any]) -> set[str]:
    """Return what a service's build needs, besides the contexts that Compose gives it."""
    file = Path(build["context"]) / build.get("dockerfile", "Dockerfile")
    if not file.is_file():
        return set()  # Compose will say so
    found = bases(file.read_text(), build.get("args") or {}, build.get("target", ""))
    return found - set(build.get("additional_contexts") or {}) - {"scratch"}


def bases(dockerfile: str, arguments: dict[str, str | None], target: str = "") -> set[str]:
    """Return the images that a Dockerfile needs.

    Args:
        dockerfile: Its text.
        arguments: Build arguments; None leaves one at its default.
        target: The stage to build; left out, it is the last.
    """
    values = dict(_ARG.findall(dockerfile)) | {k: v for k, v in arguments.items() if v}
    stages: dict[str, str] = {}
    for image, name in _FROM.findall(dockerfile):
        base = re.sub(r"\$\{?(\w+)\}?", lambda variable: values.get(variable[1], ""), image)
        stages[name or str(len(stages))] = stages.get(base, base)
    # A stage that only gives an image a name needs it once something else is built on that name.
    needed = [target or next(reversed(stages)), *re.findall(r"--from=(\S+)", dockerfile)]
    return {stages.get(stage, stage) for stage in needed}


def ensure(wanted: Iterable[str]) -> None:
    """Make sure that images are on this machine, the official ones wherever a registry answers.

    Args:
        wanted: Image references with a tag, such as `postgres:18.4`.

    Raises:
        UserError: One is neither here, nor to be pulled, nor to be built.
    """
    here = {one: stand_in.is_here(one) for one in wanted}
    standing_in = {one: here[one] and stand_in.is_one(one) for one in here}
    pulled_from = {registry.of(one) for one in here if _was_pulled(one) and not standing_in[one]}
    registries = Registries()
    for reference in here:
        if not here[reference]:
            _obtain(reference, registries, pulled_from)
        elif standing_in[reference]:
            _renew(reference, registries)


class Registries:
    """The registries of one run; one that does not answer is asked once."""

    def __init__(self) -> None:
        self._silent: dict[str, str] = {}

    def pull(self, reference: str, *, seconds: float) -> str:
        """Pull an image.

        Args:
            reference: Its name.
            seconds: How long to wait for an answer.

        Returns:
            Why no registry was asked or did answer; empty once the image is here.

        Raises:
            UserError: The registry answered that it would not give it.
        """
        if not allowed("HOST_PULL"):
            return "HOST_PULL=no"
        name = registry.of(reference)
        if name not in self._silent:
            try:
                registry.pull(reference, seconds=seconds)
            except registry.Unreachable as found:
                self._silent[name] = f"no registry answers ({found})"
        return self._silent.get(name, "")


def _was_pulled(reference: str) -> bool:
    digests = output("docker", "image", "inspect", "--format={{.RepoDigests}}", reference)
    return digests not in {None, "[]"}


def _obtain(reference: str, registries: Registries, pulled_from: set[str]) -> None:
    """Pull an image that is not here, or build what stands in for it."""
    why_not = registries.pull(reference, seconds=_PATIENCE)
    if not why_not:
        return
    if allowed("HOST_PULL") and registry.of(reference) in pulled_from:
        raise UserError(
            f"the image {reference} cannot be pulled: {why_not}, though others came from there: "
            "try again later, or let HOST_PULL=no build a stand-in"
        )
    _build(reference, why_not, registries)


def _build(reference: str, why: str, registries: Registries) -> None:
    if not allowed("HOST_BUILD"):
        raise UserError(f"the image {reference} is not here, {why}, and HOST_BUILD=no")
    if reference != stand_in.BASE and not stand_in.is_here(stand_in.BASE):
        _obtain(stand_in.BASE, registries, set())
    stand_in.build(reference, why)


def _renew(reference: str, registries: Registries) -> None:
    """Put the official image in the place of a stand-in, or a newer stand-in."""
    try:
        if not registries.pull(reference, seconds=_HASTE):
            say(f"{reference} is the official image now, in place of the stand-in")
            return
    except UserError as error:
        say(f"a stand-in goes on in its place: {error}")
    if allowed("HOST_BUILD") and not stand_in.is_current(reference):
        _build(reference, "its recipe has changed", registries)
