"""`make trust`: a certificate for localhost that this machine and its browsers trust.

It is signed by an authority made for it, which can sign for localhost and names below it alone. Its
key was never written anywhere, so nobody signs with it again. `none` takes it out of the stores.
"""

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from host import commands
from host.commands import UserError, output
from ops.docker import ROOT
from ops.https import LATE, Endpoint
from ops.stack import Stack

FOLDER = ROOT / "localhost"
# Apple's programs accept no more than 825.
DAYS = 820
_KEY = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
_CONSTRAINTS = "permitted;DNS:localhost,excluded;IP:0.0.0.0/0.0.0.0,excluded;IP:::/::"
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_SYSTEM = Path("/usr/local/share/ca-certificates")
# Where Chromium and what is made of it looks, and then Firefox; as installed by snap, too.
_CHROMIUM = (".pki/nssdb", ".local/share/pki/nssdb", "snap/chromium/current/.pki/nssdb")
_FIREFOX = (
    ".mozilla/firefox/*",
    ".config/mozilla/firefox/*",
    "snap/firefox/common/.mozilla/firefox/*",
)


def _openssl(*arguments: str, stdin: str = "") -> str:
    try:
        done = subprocess.run(
            ["openssl", *arguments], input=stdin, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise UserError("openssl is missing: install the package of this name") from None
    if done.returncode:
        raise UserError(f"`openssl {' '.join(arguments)}` fails: {done.stderr.strip()}")
    return done.stdout


def make(project: str, names: list[str], folder: Path) -> None:
    """Write an authority, and a certificate by it with its key.

    Args:
        project: What tells it from those of other checkouts.
        names: What the certificate is for.
        folder: Where `authority.pem` and `certificate.pem` are to be.

    Raises:
        UserError: openssl is missing, or does not do that.
    """
    authority_key, key = _openssl(*_KEY), _openssl(*_KEY)
    with tempfile.TemporaryDirectory() as scratch:
        authority, request = f"{scratch}/authority.pem", f"{scratch}/request.pem"
        _openssl(
            *("req", "-x509", "-new", "-key", "/dev/stdin", "-days", str(DAYS), "-out", authority),
            *("-subj", f"/O=Berth on localhost/CN={project[:64]}"),
            *("-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"),
            *("-addext", "keyUsage=critical,keyCertSign"),
            *("-addext", f"nameConstraints=critical,{_CONSTRAINTS}"),
            stdin=authority_key,
        )
        _openssl(
            *("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=localhost", "-out", request),
            *("-addext", f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "keyUsage=critical,digitalSignature"),
            *("-addext", "extendedKeyUsage=serverAuth"),
            stdin=key,
        )
        certificate = _openssl(
            *("x509", "-req", "-in", request, "-copy_extensions", "copyall", "-days", str(DAYS)),
            *("-CA", authority, "-CAkey", "/dev/stdin"),
            stdin=authority_key,
        )
        folder.mkdir(exist_ok=True)
        shutil.copyfile(authority, folder / "authority.pem")
    new = folder / "certificate.new"
    new.unlink(missing_ok=True)
    new.touch(0o600)
    new.write_text(certificate + key)
    new.replace(folder / "certificate.pem")


def is_good(names: list[str], folder: Path) -> bool:
    """Whether there is a certificate for these names, and for a good while."""
    authority, certificate = folder / "authority.pem", str(folder / "certificate.pem")
    late = str(int(DAYS * 86400 * LATE))
    looked = ("openssl", "x509", "-in", certificate, "-noout", "-ext", "subjectAltName")
    return (
        output("openssl", "verify", "-CAfile", str(authority), certificate) is not None
        and output("openssl", "x509", "-in", certificate, "-noout", "-checkend", late) is not None
        and set(names) <= set(re.findall(r"DNS:([^,\s]+)", output(*looked) or ""))
    )


class System:
    """The authorities that curl and most programs of this machine trust."""

    def __init__(self, project: str) -> None:
        self.name = "this machine"
        self._file = _SYSTEM / f"berth-{project}.crt"
        # A user's PATH may lack it.
        places = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
        self._update = shutil.which("update-ca-certificates", path=places)

    def trust(self, authority: Path) -> str:
        """Add the authority; returns what was done."""
        if not self._update:
            raise UserError(f"no update-ca-certificates: add {authority} as this system wants it")
        if self._file.exists() and self._file.read_bytes() == authority.read_bytes():
            return "trusts it already"
        _as_root("install", "-D", "--mode=644", str(authority), str(self._file))
        _as_root(self._update)
        return f"trusts it now, by {self._file}"

    def forget(self) -> str:
        """Take the authority out; returns what was done."""
        if not self._file.exists():
            return "has none"
        _as_root("rm", str(self._file))
        if self._update:
            _as_root(self._update, "--fresh")
        return f"trusts it no more; {self._file} is gone"


def _as_root(*command: str) -> None:
    if os.geteuid() != 0:
        commands.say(f"sudo {' '.join(command)}")
        command = ("sudo", *command)
    try:
        commands.run(command, purpose="change what this machine trusts")
    except OSError:
        raise UserError(f"no {command[0]} here, and this takes root") from None


class Browser:
    """A store of certificates that browsers keep, as NSS makes it."""

    def __init__(self, folder: Path, project: str) -> None:
        self.name = f"~/{folder.relative_to(Path.home())}"
        self._folder = folder
        self._label = f"Berth on localhost ({project})"

    def _certutil(self, *arguments: str) -> None:
        command = ["certutil", "-d", f"sql:{self._folder}", *arguments]
        commands.run(command, purpose=f"change what {self.name} trusts")

    def _held(self) -> list[bytes]:
        database = ("-d", f"sql:{self._folder}")
        listed = output("certutil", *database, "-L", "-a", "-n", self._label) or ""
        return [ssl.PEM_cert_to_DER_cert(one) for one in _PEM.findall(listed)]

    def trust(self, authority: Path) -> str:
        """Add the authority; returns what was done."""
        _require_certutil()
        if self._held() == [ssl.PEM_cert_to_DER_cert(authority.read_text())]:
            return "trusts it already"
        if not (self._folder / "cert9.db").exists():
            self._folder.mkdir(0o700, parents=True, exist_ok=True)
            self._certutil("-N", "--empty-password")
        self.forget()
        self._certutil("-A", "-t", "C,,", "-n", self._label, "-i", str(authority))
        return "trusts it now"

    def forget(self) -> str:
        """Take the authority out; returns what was done."""
        if not (self._folder / "cert9.db").exists():
            return "has none"
        _require_certutil()
        held = self._held()
        for _ in held:
            self._certutil("-D", "-n", self._label)
        return "trusts it no more" if held else "has none"


def _require_certutil() -> None:
    if not shutil.which("certutil"):
        raise UserError("certutil is missing: `sudo apt install libnss3-tools`, and this again")


def stores(project: str) -> list[System | Browser]:
    """Return where this machine and this user's browsers look; Chromium's may not be there yet."""
    home = Path.home()

    def found(patterns: tuple[str, ...]) -> list[Path]:
        return sorted(one.parent for each in patterns for one in home.glob(f"{each}/cert9.db"))

    folders = [*(found(_CHROMIUM) or [home / _CHROMIUM[0]]), *found(_FIREFOX)]
    return [System(project), *(Browser(folder, project) for folder in folders)]


def in_each(project: str, do: Callable[[System | Browser], str]) -> None:
    """Do something to each store, and say what was done.

    Raises:
        UserError: One of them is as it was; the others are done.
    """
    failed = []
    for store in stores(project):
        try:
            print(f"{store.name} {do(store)}", flush=True)
        except UserError as error:
            failed.append(f"{store.name} is as it was: {error}")
    if failed:
        raise UserError("\n".join(failed))


def _require_own_user() -> None:
    if os.environ.get("SUDO_USER") and os.geteuid() == 0:
        raise UserError(
            "leave sudo out: it is asked for where it takes root, and browsers are yours"
        )


def trust() -> None:
    """Make what is missing, and add it everywhere.

    Raises:
        UserError: Something is left to do.
    """
    _require_own_user()
    stack = Stack.read()
    if not stack.is_local:
        raise UserError(
            f"DOMAIN={stack.domain} has its certificate from an authority; leave DOMAIN out, "
            "or give a name that ends in .localhost"
        )
    names = list(dict.fromkeys(name.lower() for name in ["localhost", *stack.names]))
    if is_good(names, FOLDER):
        print(f"the certificate in {FOLDER} is good")
    else:
        try:
            make(stack.project, names, FOLDER)
        except OSError as error:
            raise UserError(f"{error.filename} cannot be written: {error.strerror}") from None
        print(f"made a certificate for {', '.join(names)}, in {FOLDER}")
    in_each(stack.project, lambda store: store.trust(FOLDER / "authority.pem"))
    print(f"browsers that are open see it when they start anew{_what_is_left(stack)}")


def _what_is_left(stack: Stack) -> str:
    made = ssl.PEM_cert_to_DER_cert(_PEM.findall((FOLDER / "certificate.pem").read_text())[0])
    with suppress(OSError):
        if Endpoint(stack.domain, *stack.published(443)).served() == made:
            return ""
    return "; `make up`, or `make dev` anew, serves it"


def untrust() -> None:
    """Take it out everywhere.

    Raises:
        UserError: Something is left to do.
    """
    _require_own_user()
    in_each(Stack.read().project, lambda store: store.forget())


if __name__ == "__main__":
    sys.exit(commands.carried_out(untrust if sys.argv[1:] == ["none"] else trust))
