"""Images built here, from Debian's and PyPI's packages, where no registry can be reached.

They keep the official images' users, paths, locale and entry points, and bear a label, so that
they are told from them and give way to them.
"""

import hashlib
import re
import tempfile
from pathlib import Path

from host import debian
from host.commands import UserError, output, run, say

BASE = f"debian:{debian.SUITE}-slim"
_RECIPES = Path(__file__).parent / "recipes"
_BUILT_FOR = "berth.built-for"
_RECIPE = "berth.recipe"
# Where a recipe writes down which version Debian had.
_VERSION = "/usr/share/berth/version"
_TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
# As in the official image, apt keeps nothing that would swell every layer.
_NO_CACHE = 'Dir::Cache { pkgcache ""; srcpkgcache ""; }; APT::Keep-Downloaded-Packages "false";'


def is_here(reference: str) -> bool:
    """Whether this machine has an image of that name, whatever its origin."""
    return output("docker", "image", "inspect", "--format={{.Id}}", reference) is not None


def is_one(reference: str) -> bool:
    """Whether the image of that name was built here; what is built on it bears its label, too."""
    return label(reference, _BUILT_FOR) == reference


def is_current(reference: str) -> bool:
    """Whether it was built as its recipe is now."""
    return reference == BASE or label(reference, _RECIPE) == _digest(split(reference)[0])


def label(reference: str, name: str) -> str:
    """Return an image's label; empty if it has none, or is not here."""
    template = f'{{{{index .Config.Labels "{name}"}}}}'
    return output("docker", "image", "inspect", f"--format={template}", reference) or ""


def _digest(name: str) -> str:
    files = sorted([*(_RECIPES / name).iterdir(), *_RECIPES.glob("*.sh")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def split(reference: str) -> tuple[str, str]:
    """Split an image reference into its last name and the version that starts its tag.

    >>> split("example.org/library/postgres:18.4-trixie")
    ('postgres', '18.4')

    Raises:
        UserError: The tag does not start with a version.
    """
    name, _, tag = reference.rpartition("/")[2].partition(":")
    version = re.match(r"v?(\d+(?:\.\d+)*)", tag.partition("@")[0])
    if version is None:
        raise UserError(f"the image {reference} cannot be pulled, and its tag names no version")
    return name, version[1]


def build(reference: str, why: str) -> None:
    """Build what stands in for an image, on `BASE` unless that is the image.

    Args:
        reference: Its name.
        why: What keeps it from being pulled.

    Raises:
        UserError: There is no recipe for it, or what it is built from does not have that version.
    """
    if reference == BASE:
        _import_base()
        return
    name, version = split(reference)
    if not (_RECIPES / name).is_dir():
        raise UserError(f"the image {reference} is not here, {why}, and host/recipes has no {name}")
    say(f"{why}: building a stand-in for {reference} from Debian's and PyPI's packages")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "id"
        run(
            [
                "docker",
                "build",
                "--quiet",
                f"--iidfile={file}",
                f"--label={_BUILT_FOR}={reference}",
                f"--label={_RECIPE}={_digest(name)}",
                f"--build-arg=BASE={BASE}",
                f"--build-arg=VERSION={version}",
                f"--file={_RECIPES / name / 'Dockerfile'}",
                str(_RECIPES),
            ],
            purpose=f"build {reference}",
        )
        image = file.read_text().strip()
    built = output("docker", "run", "--rm", "--network=none", "--entrypoint=cat", image, _VERSION)
    try:
        judge(reference, built or "")
    except UserError:
        output("docker", "image", "rm", image)
        raise
    run(["docker", "tag", image, reference], purpose=f"name {reference}")


def judge(reference: str, built: str) -> None:
    """Compare the version that a tag asks for with the one that was to be had.

    Raises:
        UserError: It is older, or of another series: only its last number may be higher.
    """
    _, version = split(reference)
    asked = [int(number) for number in version.split(".")]
    found = [int(number) for number in re.findall(r"\d+", built)][: len(asked)]
    if found == asked:
        return
    if len(asked) == 1 or found[:-1] != asked[:-1] or found < asked:
        raise UserError(
            f"the image {reference} cannot be pulled, and no stand-in can be built: "
            f"what there is to build it from is {built or 'unknown'}"
        )
    say(f"what stands in for {reference} is {built}")


def _import_base() -> None:
    """Build the Debian image that the recipes start from.

    Raises:
        UserError: This machine cannot.
    """
    if not debian.is_installable():
        raise UserError(
            "no registry answers, and images can only be built on Debian or Ubuntu as root"
        )
    say(f"building {BASE} with mmdebstrap")
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
        label = f"--change=LABEL {_BUILT_FOR}={BASE}"
        run(
            ["docker", "import", "--change=CMD bash", label, str(tree), BASE],
            purpose=f"import {BASE}",
        )
