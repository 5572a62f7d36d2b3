"""What a deploy brings to another machine: Berth's files, the settings, and the app's image."""

import gzip
import hashlib
import inspect
import io
import itertools
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from host.commands import UserError
from ops import dotenv
from ops.docker import ROOT, docker
from ops.ssh import Server

# What runs there. Tests, documentation and the example stay here.
_PROGRAMS = (
    *("compose.yaml", "app.yaml", "Makefile", "Dockerfile", ".gitignore"),
    *("berth", "host", "image", "ops", "traefik", "db", "backup", "metrics", "keys"),
)
# What the settings name, and where it is if they do not.
_SETTINGS = {
    "APP_ENV": "app.env",
    "APP_SECRETS": "secrets",
    "DATABASE_URL_FILE": "",
    "DATABASE_CA": "",
    "ACME_CA_CERTIFICATE": "",
    "MAINTENANCE_PAGE": "",
    "OFFSITE_KEYS": "keys",
    "ALERT_KEYS": "keys/alerts",
    "COMPOSE_FILE": "compose.override.yaml",
}
_ENV = f"{ROOT.name}/.env"
# Prints a digest of each file that is there, by its path; of .env, one of each variable.
_LOOK = """
import hashlib, json, pathlib, sys
base = pathlib.Path(sys.argv[1]).expanduser()
note = base / ".brought"
names = set(json.load(sys.stdin)) | set(json.loads(note.read_text()) if note.exists() else [])
print(json.dumps({x: digest((base / x).read_bytes(), x) for x in names if (base / x).is_file()}))
"""
# Once all has come, each file takes its place at once; what no longer comes is removed. Who waits
# for what a broken line will never bring holds no lock.
_UNPACK = """
import fcntl, json, os, pathlib, shutil, sys, tarfile, tempfile
come = tempfile.TemporaryFile()
shutil.copyfileobj(sys.stdin.buffer, come)
come.seek(0)
base = pathlib.Path(sys.argv[1]).expanduser()
base.mkdir(parents=True, exist_ok=True)
lock = (base / ".lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
new, note = base / ".coming", base / ".brought"
shutil.rmtree(new, ignore_errors=True)
new.mkdir(mode=0o700)
with tarfile.open(fileobj=come) as archive:
    archive.extractall(new)
names = json.loads((new / note.name).read_text())
gone = set(json.loads(note.read_text()) if note.exists() else []) - set(names)
for name in [*names, note.name]:
    (base / name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(new / name, base / name)
for name in gone:
    (base / name).unlink(missing_ok=True)
shutil.rmtree(new)
"""


def digest(content: bytes, name: str) -> Any:  # noqa: ANN401 - a digest, or one by variable
    """Return what tells two versions of a file apart, and nothing else of it."""
    if not name.endswith("/.env"):
        return hashlib.sha256(content).hexdigest()
    lines = [x.split(b"=", 1) for x in content.splitlines() if b"=" in x and x[:1] != b"#"]
    return {x[0].decode().strip(): hashlib.sha256(x[1]).hexdigest() for x in lines}


@dataclass(frozen=True)
class Files:
    """What is brought, beside the image.

    Attributes:
        base: The folder there, with a tilde for the user's.
        local: Where each other file is here, by its path below `base`.
        settings: What is brought as `.env`.
    """

    base: str
    local: dict[str, Path]
    settings: bytes

    @classmethod
    def of(cls, project: str) -> "Files":
        """Find them: what runs there, and what the settings name.

        Raises:
            UserError: A setting names what has no place there.
        """
        settings = dotenv.values(_SETTINGS)
        own = Path(os.environ.get("COMPOSE_ENV_FILES") or ROOT / ".env")
        found: dict[str, Path] = {}
        places = [("", Path(one)) for one in _PROGRAMS]
        for variable, usual in _SETTINGS.items():
            value = settings[variable] or usual
            several = value.split(":") if variable == "COMPOSE_FILE" else [value]
            places += [(variable, Path(one)) for one in several if one]
        for variable, path in places:
            if path.is_absolute():
                continue  # of the other machine
            place = Path(os.path.normpath(ROOT / path))
            if not place.is_relative_to(ROOT.parent):
                raise UserError(
                    f"{variable}={path}: give a path in {ROOT} or beside it, such as ../shop/…, "
                    "which has a place on the other machine, too; or one from / on, of a file there"
                )
            for file in [place] if place.is_file() else sorted(place.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    found[str(file.relative_to(ROOT.parent))] = file
        return cls(f"~/berth/{project}", found, own.read_bytes() if own.exists() else b"")

    def with_settings(self, settings: Mapping[str, str], why: str) -> "Files":
        """Return the same with more in `.env`."""
        more = dotenv.addition(self.settings.decode(), settings, why)
        return replace(self, settings=self.settings + more.encode())

    @property
    def _names(self) -> list[str]:
        return [*self.local, _ENV]

    def differences(self, server: Server) -> list[str]:
        """Return what would change there, one line each."""
        look = f"from typing import Any\n{inspect.getsource(digest)}{_LOOK}"
        there = json.loads(
            server.output("python3", "-c", look, self.base, stdin=json.dumps(self._names))
        )
        here = {name: digest(file.read_bytes(), name) for name, file in self.local.items()}
        here[_ENV] = digest(self.settings, _ENV)
        names = sorted(here.keys() | there.keys())
        changes = (_change(name, there.get(name), here.get(name)) for name in names)
        return [change for change in changes if change]

    def bring(self, server: Server) -> None:
        """Put all of them there."""

        def write(stream: IO[bytes]) -> None:
            with tarfile.open(fileobj=stream, mode="w|") as archive:
                for name, file in self.local.items():
                    archive.add(file.resolve(), name)
                # At the end, since without it nothing takes its place.
                note = json.dumps(self._names).encode()
                for name, content in ((_ENV, self.settings), (".brought", note)):
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = len(content), 0o600
                    archive.addfile(entry, io.BytesIO(content))

        server.feed(write, "python3", "-c", _UNPACK, self.base)


def _change(name: str, before: Any, after: Any) -> str:  # noqa: ANN401 - as `digest` returns it
    """Say how a file changes, and of .env which variables; empty if it does not."""
    if before == after:
        return ""
    if after is None:
        return f"- {name}"
    if isinstance(after, dict):
        before = before or {}
        changed = [x for x in sorted(before | after) if before.get(x) != after.get(x)]
        return f"~ {name}: {', '.join(changed)}" if changed else ""
    return f"{'+' if before is None else '~'} {name}"


def send(server: Server, reference: str) -> str:
    """Bring an image, without the layers that are there; returns how much that was."""
    with tempfile.NamedTemporaryFile() as file:
        docker("save", f"--output={file.name}", reference)
        with tarfile.open(file.name) as archive:
            left_out = _known(archive, _layers(server))
            sizes = [0]

            def write(stream: IO[bytes]) -> None:
                with (
                    gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as packed,
                    tarfile.open(fileobj=packed, mode="w|") as thin,
                ):
                    for entry in archive:
                        if entry.name not in left_out:
                            thin.addfile(
                                entry, archive.extractfile(entry) if entry.isfile() else None
                            )
                            sizes[0] += entry.size

            server.feed(write, "docker", "load", "--quiet")
    return f"{sizes[0] / 1e6:.0f} MB"


def _layers(server: Server) -> list[list[str]]:
    """Return the layers of each image there; none where the engine loads only whole images."""
    driver = server.output("docker", "info", "--format={{.DriverStatus}}")
    if "io.containerd.snapshotter" in driver:
        return []
    every = "docker image ls --quiet --no-trunc | sort -u"
    each = "xargs -r docker image inspect --format '{{json .RootFS.Layers}}'"
    listed = server.output("sh", "-c", f"{every} | {each}")
    return [json.loads(line) or [] for line in listed.splitlines()]


def _known(archive: tarfile.TarFile, there: list[list[str]]) -> set[str]:
    """Return the names of the layers in an archive that an engine with others need not be sent.

    An engine looks for a layer by all that are below it, too, and reads no file then.
    """

    def read(name: str) -> Any:  # noqa: ANN401
        file = archive.extractfile(name)
        assert file  # noqa: S101
        return json.load(file)

    (image,) = read("manifest.json")
    layers = read(image["Config"])["rootfs"]["diff_ids"]
    common = max((_prefix(layers, one) for one in there), default=0)
    # Engines before 25 have links to layers that occur twice.
    links = {os.path.normpath(f"{one.name}/../{one.linkname}") for one in archive if one.issym()}
    return set(image["Layers"][:common]) - set(image["Layers"][common:]) - links


def _prefix(one: list[str], other: list[str]) -> int:
    pairs = zip(one, other, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
