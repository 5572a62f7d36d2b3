"""The app's images: an immutable tag for each build, and the one that Compose runs.

`current`, or whatever API_IMAGE names, is a pointer: plain `docker compose up` runs what it points
at, and deploying moves it. Each image knows by a label which one it was built to replace.
"""

import json
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from host.app import based_on, own_build, prepared
from host.commands import UserError, output
from host.images import ORIGIN
from image.commands import MARK
from ops.docker import ROOT, DockerError, compose, docker, inspect, tail
from ops.stack import MIGRATE, SERVICE, Stack
from ops.terminal import Terminal

KEPT = 5
_LOG_LINES = 200
REPLACES = "berth.replaces"
_VERSION = "APP_VERSION"
_PROGRAM = "_berth.server"
_MOMENT = "%Y%m%d-%H%M%S"
_TAG = re.compile(r"\d{8}-\d{6}(-[0-9a-f]{7,}(-dirty)?)?")
# What a build says that does not suit its builder, and the way out.
_UNFIT = {
    "Multi-platform build is not supported": "this builder makes images for one platform at a "
    "time: `docker buildx create --use` makes one for several, as in PLATFORMS",
    "exec format error": "a program in it is not for this machine's processor: for others, as in "
    "PLATFORMS, install qemu-user-static, or build on a machine of their kind",
}


@dataclass(frozen=True)
class Image:
    """An image of the app on this machine."""

    id: str
    tag: str  # the immutable one; empty if it was built by other means than ours
    version: str
    replaces: str
    created: str
    content: str
    # Whether it has the programs that compose.yaml starts; images of an older Berth have others.
    has_berth: bool = True
    # The name, with a digest, that it was pulled as; empty if it was built here.
    origin: str = ""

    @property
    def name(self) -> str:
        """What to call it."""
        return self.tag or self.version or self.id.removeprefix("sha256:")[:12]

    def has_content_of(self, other: "Image") -> bool:
        """Whether the two differ in nothing but the name of their version."""
        return self.content == other.content


def from_inspect(found: dict[str, Any], repository: str) -> Image:
    """Read what `docker image inspect` says."""
    configuration = dict(found["Config"])
    variables = configuration.pop("Env", None) or []
    labels = dict(configuration.pop("Labels", None) or {})
    version = [one.partition("=")[2] for one in variables if one.startswith(f"{_VERSION}=")]
    replaces = labels.pop(REPLACES, "")
    origin = labels.pop(ORIGIN, "")
    # Which Compose built it is no content.
    others = {key: value for key, value in labels.items() if not key.startswith("com.docker.")}
    return Image(
        id=found["Id"],
        tag=next((tag for tag in tags_in(found.get("RepoTags") or [], repository)), ""),
        version=version[0] if version else "",
        replaces=replaces,
        created=found.get("Created", ""),
        has_berth=_PROGRAM in (configuration.get("Cmd") or []),
        origin=origin,
        content=json.dumps(
            [
                found["RootFS"],
                configuration,
                others,
                [one for one in variables if not one.startswith(f"{_VERSION}=")],
            ],
            sort_keys=True,
        ),
    )


def change(before: Image, after: Image) -> str:
    """Say what became of a version."""
    if before.id == after.id:
        return f"all of them {after.name} with the present settings"
    return f"{before.name} → {after.name}"


def has_this_server(image: Image) -> bool:
    """Whether the server in an image is that of this checkout, in berth/.

    Raises:
        DockerError: There is no looking into it.
    """
    if not image.has_berth:
        return False
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        # Never started: what is in an image can be had by way of a container only.
        container = docker("create", image.id)
        try:
            docker("cp", f"{container}:/opt/berth/_berth", folder)
        finally:
            docker("rm", container)
        return _files(Path(folder, "_berth")) == _files(ROOT / "berth")


def _files(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


def tags_in(references: list[str], repository: str) -> list[str]:
    """Return the immutable tags of a repository among image references, the newest first."""
    found = (one.rpartition(":") for one in references)
    return sorted(
        (tag for name, _, tag in found if name == repository and _TAG.fullmatch(tag)), reverse=True
    )


def new_tag(now: datetime, folder: Path = ROOT) -> str:
    """Return a tag that sorts by time and names the commit of the app that it is built from."""
    moment = now.astimezone(UTC).strftime(_MOMENT)
    commit = output("git", "-C", str(folder), "rev-parse", "--short", "HEAD")
    if not commit:
        return moment
    changes = output("git", "-C", str(folder), "status", "--porcelain", ".")
    return f"{moment}-{commit}-dirty" if changes else f"{moment}-{commit}"


def renewed_tag(now: datetime, tag: str) -> str:
    """Return a tag of another time that names the same commit, if it names one."""
    found = _TAG.fullmatch(tag)
    commit = found[1] if found else None
    return now.astimezone(UTC).strftime(_MOMENT) + (commit or "")


def _service(name: str, version: str, build: dict[str, Any]) -> dict[str, Any]:
    """Describe to Compose an image to build, which says what version it is."""
    arguments = {**build.get("args", {}), _VERSION: version}
    return {"image": name, "build": {**build, "args": arguments}}


def explain(log: str) -> str:
    """Return why an image does not build: in the words of its build, or with the log's end."""
    # BuildKit puts a number, or a time, before each line.
    said = re.findall(rf"^\s*(?:#\d+ )?(?:[\d.]+ )?{MARK}(.+)$", log, re.MULTILINE)
    said += [way_out for words, way_out in _UNFIT.items() if words in log]
    if said:
        return f"the image does not build: {said[-1]}"
    return f"the image does not build:\n  {tail(log)}"


class Images:
    """The images of a stack's app."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.pointer = str(stack.service(SERVICE)["image"])
        self.repository, _, tag = self.pointer.rpartition(":")
        if not self.repository or "/" in tag or "@" in self.pointer:
            raise UserError(f"API_IMAGE={self.pointer}: it must end with a tag, such as :current")

    def reference(self, tag: str) -> str:
        """Return the full name of a tag."""
        return f"{self.repository}:{tag}"

    def find(self, reference: str) -> Image | None:
        """Return the image of an id or a full name, if it is here."""
        found = inspect("image", reference)
        return from_inspect(found[0], self.repository) if found else None

    def current(self) -> Image | None:
        """Return what the pointer points at."""
        return self.find(self.pointer)

    def tags(self) -> list[str]:
        """Return all immutable tags, the newest first."""
        listed = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", self.repository)
        return tags_in(listed.splitlines(), self.repository)

    def build(self, tag: str, *, replaces: str, terminal: Terminal) -> Image:
        """Build this tree's image under an immutable tag.

        Raises:
            UserError: It does not build; the sentence ends with the last lines of the build.
            StopRequested: Somebody wants to stop.
        """
        return self._build(tag, self.ready_build(terminal), replaces, terminal)

    def build_tree(self, replaces: Image | None, terminal: Terminal) -> Image:
        """Build this tree's image under a tag that says when it was built and of which commit."""
        tag = new_tag(datetime.now(UTC), self.source)
        with terminal.step(f"building {tag}"):
            return self.build(tag, replaces=replaces.tag if replaces else "", terminal=terminal)

    def renew(self, image: Image, terminal: Terminal) -> Image:
        """Build one with this checkout's Berth from an image with another, whose app it keeps.

        Raises:
            UserError: It does not build; the sentence ends with the last lines of the build.
            StopRequested: Somebody wants to stop.
        """
        tag = renewed_tag(datetime.now(UTC), image.tag)
        build = based_on(self.reference(image.tag), self._stack.service(SERVICE)["build"])
        with terminal.step(f"building {tag}: {image.name} with this Berth's server"):
            return self._build(tag, build, image.tag, terminal)

    def build_for_others(
        self, name: str, version: str, cache: str, platforms: list[str], terminal: Terminal
    ) -> None:
        """Build this tree's image under a name of a registry's.

        Args:
            name: What to call it.
            version: What it says that it is.
            cache: The name of an image with layers that need not be built again.
            platforms: What to build it for, and push at once, under both names: no engine need
                be able to keep it. If there are none, it is for this machine, and stays here.
            terminal: Who may give it up.

        Raises:
            UserError: It does not build; the sentence ends with the last lines of the build.
            StopRequested: Somebody wants to stop.
        """
        if platforms and own_build(self._stack.service(SERVICE)["build"]):
            raise UserError(
                "PLATFORMS: what APP_DOCKERFILE builds is for this machine alone: build on a "
                "machine of each kind"
            )
        build = self.ready_build(terminal)
        # With every builder and every store of images, where others cannot keep a cache.
        build |= {"cache_from": [f"type=registry,ref={cache}"], "cache_to": ["type=inline"]}
        if not platforms:
            self._made(name, version, build, terminal)
            return
        build |= {"platforms": platforms, "tags": [cache]}
        self._compose_build(_service(name, version, build), terminal, "--push")

    def label(self, image: Image, origin: str, replaces: str, terminal: Terminal) -> Image:
        """Give a pulled image an immutable tag, and say by labels where it is from.

        It becomes another image that shares all of its layers: what it replaces on this machine
        is nothing that could be known where it was built.
        """
        inline = {"context": ".", "dockerfile_inline": f"FROM {origin}\n"}
        tag = renewed_tag(datetime.now(UTC), image.version)
        return self._build(tag, {**inline, "labels": {ORIGIN: origin}}, replaces, terminal)

    def unless_there(self, image: Image) -> Image:
        """Forget an image whose content runs already, or is what Compose would start.

        Returns:
            The one that has the content, or else the image itself.
        """
        ids = {one.image for one in self._stack.replicas()} - {image.id}
        for other in (self.current(), *map(self.find, ids)):
            if other and other.tag and image.has_content_of(other):
                self.forget(image.tag)
                return other
        return image

    def ready_build(self, terminal: Terminal) -> dict[str, Any]:
        """Return what Compose is to build: what it resolved, with what it cannot see.

        There is no second description of the build. A Dockerfile of the app's own is built by now.
        """
        resolved = self._stack.service(SERVICE)["build"]
        if own := own_build(resolved):
            self._compose_build(own, terminal)
        return prepared(resolved)

    @property
    def source(self) -> Path:
        """The folder of the app: APP_DIR."""
        return Path(self._stack.service(SERVICE)["build"]["additional_contexts"]["app"])

    def _build(self, tag: str, build: dict[str, Any], replaces: str, terminal: Terminal) -> Image:
        labels = {**build.get("labels", {}), REPLACES: replaces}
        return self._made(self.reference(tag), tag, {**build, "labels": labels}, terminal)

    def _made(self, name: str, version: str, build: dict[str, Any], terminal: Terminal) -> Image:
        self._compose_build(_service(name, version, build), terminal)
        image = self.find(name)
        if image is None:
            raise UserError(f"the build ended well but left no image {name}")
        return image

    def _compose_build(self, service: dict[str, Any], terminal: Terminal, *options: str) -> None:
        project = {"name": self._stack.project, "services": {SERVICE: service}}
        try:
            compose(
                *(
                    "--progress=plain",
                    "--project-directory=.",
                    "--file=-",
                    "build",
                    *options,
                    SERVICE,
                ),
                stdin=json.dumps(project),
                given_up_by=terminal,
                merged=True,
                quoted=_LOG_LINES,
            )
        except DockerError as error:
            raise UserError(explain(str(error))) from None

    def adopt(self, image: Image) -> Image:
        """Give an image that others built an immutable tag, so that one can come back to it."""
        if image.tag:
            return image
        created = re.sub(r"\D", "", image.created)
        tag = f"{created[:8]}-{created[8:14]}"
        docker("tag", image.id, self.reference(tag))
        return self.find(image.id) or image

    def point_at(self, image: Image) -> None:
        """Make an image the one that Compose runs, and have `migrate` be of it.

        For `up` of Compose 2.26 replaces at once whatever depends on what it replaces.
        """
        migrate = self._stack.containers(MIGRATE)
        stale = [one.id for one in migrate if one.image != image.id]
        if stale:
            with suppress(DockerError):  # somebody has just started it
                docker("rm", *stale)
        docker("tag", image.id, self.pointer)
        if stale:
            with suppress(DockerError):
                compose("create", "--no-recreate", "--no-build", MIGRATE)

    def forget(self, tag: str) -> None:
        """Remove a tag, and its image where nothing else needs it."""
        self._untag(self.reference(tag))

    def _untag(self, reference: str) -> None:
        # Fails for the last name of what a container still uses, which is as well.
        with suppress(DockerError):
            docker("image", "rm", reference)

    def prune(self) -> list[str]:
        """Forget all but the newest tags, and never one that is in use; return what is gone."""
        used = {one.image for one in self._stack.containers()}
        current = self.current()
        if current:
            before = self.find(self.reference(current.replaces)) if current.replaces else None
            used |= {one.id for one in (current, before) if one}
        gone = []
        for tag in self.tags()[KEPT:]:
            image = self.find(self.reference(tag))
            if image and image.id not in used:
                self.forget(tag)
                gone.append(tag)
        return gone
