"""The certificate for localhost, and the authority that can sign for nothing else; no engine."""

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ops import trust


def refusal(folder: Path, name: str) -> str:
    """Return why the certificate is good for nothing under a name; a blank if it is good."""
    authority, certificate = folder / "authority.pem", folder / "certificate.pem"
    command = ["openssl", "verify", "-x509_strict", "-verify_hostname", name]
    files = ["-CAfile", str(authority), str(certificate)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stderr)
    return done.stderr


def test_certificate_is_for_its_names(tmp_path: Path) -> None:
    """And is made anew only for others."""
    names = ["localhost", "shop.localhost"]
    assert not trust.is_good(names, tmp_path)
    trust.make("berth", names, tmp_path)
    assert [refusal(tmp_path, name) for name in names] == ["", ""]
    assert "hostname mismatch" in refusal(tmp_path, "other.localhost")
    assert trust.is_good(names, tmp_path)
    assert not trust.is_good([*names, "other.localhost"], tmp_path)


@pytest.mark.parametrize("name", ["example.com", "localhost.example.com", "mylocalhost"])
def test_authority_signs_for_nobody_else(tmp_path: Path, name: str) -> None:
    """What it signs for another name is refused under every name."""
    trust.make("berth", ["localhost", name], tmp_path)
    assert "permitted subtree violation" in refusal(tmp_path, name)
    assert "permitted subtree violation" in refusal(tmp_path, "localhost")


def test_key_of_the_authority_is_nowhere(tmp_path: Path) -> None:
    """The one key that is written is the certificate's, and its owner's alone."""
    trust.make("berth", ["localhost"], tmp_path)
    authority, certificate = tmp_path / "authority.pem", tmp_path / "certificate.pem"
    assert {*tmp_path.iterdir()} == {authority, certificate}
    assert "PRIVATE" not in authority.read_text()
    assert certificate.read_text().count("BEGIN PRIVATE KEY") == 1
    assert certificate.stat().st_mode & 0o777 == 0o600
    key = load_pem_private_key(certificate.read_text().encode(), None)
    leaf, root = (x509.load_pem_x509_certificate(x.read_bytes()) for x in (certificate, authority))
    assert key.public_key() == leaf.public_key() != root.public_key()
    constraints = root.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("localhost")]


def test_certificate_is_made_anew_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once no more than a quarter of its days are left, which the doctor complains of."""
    for days, is_good in ((206, True), (205, False)):
        with monkeypatch.context() as patch:
            patch.setattr(trust, "DAYS", days)
            trust.make("berth", ["localhost"], tmp_path)
        assert trust.is_good(["localhost"], tmp_path) == is_good
