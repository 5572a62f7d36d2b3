"""TLS: current, forward secret, graded A+, and silent towards whoever asks for another name."""

import json
import socket
import ssl
from pathlib import Path

import pytest
import requests

from tests.stack.inside import attack
from tests.stack.stack import Stack


def shake_hands(stack: Stack, name: str | None, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect under a server name; the certificate is not the matter here."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", stack.https_port), timeout=5)
    try:
        return context.wrap_socket(raw, server_hostname=name)
    except OSError:
        raw.close()
        raise


@pytest.mark.parametrize("name", ["other.test", "www.berth.test", "localhost", "127.0.0.1", None])
def test_unknown_server_names_are_refused(stack: Stack, name: str | None) -> None:
    """They get no certificate, which would tell who lives here."""
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        shake_hands(stack, name, ssl.create_default_context())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_http_2(stack: Stack, version: ssl.TLSVersion) -> None:
    """What every browser of the last ten years can do."""
    context = ssl.create_default_context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with shake_hands(stack, stack.domain, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"


@pytest.mark.parametrize(
    "ciphers", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-SHA", "ECDHE+AES+SHA1"]
)
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    stack: Stack, ciphers: str
) -> None:
    """A key that is stolen later opens nothing that was recorded."""
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
        shake_hands(stack, stack.domain, context)


def test_testssl_grades_a_plus(stack: Stack, tmp_path: Path) -> None:
    """With the certificate that a real domain gets; nothing it looks at is worse than a remark."""
    assert stack.root is not None
    root = tmp_path / "root.pem"
    root.write_bytes(stack.root.read_bytes())
    root.chmod(0o644)
    tmp_path.chmod(0o755)
    said = attack(
        stack,
        *("testssl", "--quiet", "--color=0", "--warnings=off", "--ip=127.0.0.1", "--nodns=min"),
        # All that the grade is made of; left out is the simulation of browsers.
        *("-p", "-s", "-f", "-S", "-h", "-U"),
        *("--add-ca=/root.pem", "--jsonfile=/dev/stderr", f"{stack.domain}:443"),
        mounts=[f"{root}:/root.pem:ro"],
        check=False,
    )
    findings = {one["id"]: one for one in json.loads(said.stderr)}
    assert findings["overall_grade"]["finding"] == "A+", said.stdout
    # The tests' authority names no place to ask about revoked certificates.
    del findings["cert_revocation"]
    bad = [one for one in findings.values() if one["severity"] in {"MEDIUM", "HIGH", "CRITICAL"}]
    assert bad == []


@pytest.mark.parametrize("path", ["/items", "/docs", "/nothing", "/items/%00", "/items/x"])
def test_no_answer_says_which_software_gave_it(stack: Stack, path: str) -> None:
    """Neither a header nor a body, be it the app's or Traefik's."""
    answer = stack.get(path)
    headers = {name.lower() for name in answer.headers}
    assert not headers & {"server", "x-powered-by", "via", "x-traefik-router"}
    if "html" not in answer.headers.get("Content-Type", ""):
        assert not [
            word for word in ("traefik", "uvicorn", "python") if word in answer.text.lower()
        ]


def test_plain_http_says_nothing_either(stack: Stack) -> None:
    """It redirects, whatever name it is asked under, and sends no body to speak of."""
    answer = requests.get(f"http://127.0.0.1:{stack.http_port}/", allow_redirects=False, timeout=10)
    assert answer.status_code in {301, 308}
    assert "server" not in answer.headers
