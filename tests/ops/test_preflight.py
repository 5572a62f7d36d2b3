import socket
from pathlib import Path

import pytest

from host.commands import UserError
from ops import preflight
from ops.stack import Stack


def test_a_full_disk_is_refused_with_the_figures(tmp_path: Path) -> None:
    """What is free, and what is needed."""
    preflight.check_disk(tmp_path, needed=1)
    with pytest.raises(UserError, match=r"has \d+\.\d GB free and a start needs 1000000000\.0"):
        preflight.check_disk(tmp_path, needed=10**18)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "there is no such file"),
        ("not a certificate", 0o644, "no certificate in PEM form"),
        ("secret", 0o600, "chmod 644"),
    ],
)
def test_a_ca_certificate_that_traefik_could_not_use_is_refused(
    tmp_path: Path, content: str | None, mode: int, says: str
) -> None:
    """The sentence names the variable and the file."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    with pytest.raises(UserError, match=f"ACME_CA_CERTIFICATE={file}: .*{says}"):
        preflight.check_certificate(file)


def test_an_address_of_another_machine_is_refused() -> None:
    """192.0.2.1 is nobody's: it is kept for documentation."""
    with pytest.raises(UserError, match=r"BIND_ADDRESS=192\.0\.2\.1"):
        preflight.check_port("HTTP_PORT", "192.0.2.1", 80, "berth")


@pytest.mark.parametrize(
    ("address", "engine", "says"),
    [
        ("192.0.2.1", "28.0.0", "give an IPv6 address of this machine, or :: for all of them"),
        ("::", "27.5.1", r"Docker Engine 27\.5\.1 is too old for that, 28 is not"),
    ],
)
def test_ipv6_that_cannot_be_had_is_refused(address: str, engine: str, says: str) -> None:
    """Before Docker says in its own words that it finds no addresses."""
    preflight.check_ipv6("::", "28.5.2")
    with pytest.raises(UserError, match=f"BIND_ADDRESS_IPV6={address}: {says}"):
        preflight.check_ipv6(address, engine)


def test_an_ipv6_address_of_another_machine_is_refused() -> None:
    """2001:db8::1 is nobody's, either."""
    with pytest.raises(UserError, match=r"BIND_ADDRESS_IPV6=2001:db8::1: this machine has no"):
        preflight.check_port("HTTP_PORT", "2001:db8::1", 80, "berth")


@pytest.mark.parametrize(
    "setting",
    ["BIND_ADDRESS=here", "BIND_ADDRESS_IPV6=on", "HTTPS_PORT=70000", "API_REPLICAS=two"],
)
def test_what_compose_does_not_take_is_refused_by_its_name(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose itself names values alone."""
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{setting}: see .env.example, Compose says: .*{value}"):
        Stack.read()


def test_behind_without_its_compose_file_is_refused() -> None:
    """It would do nothing."""
    says = "^BEHIND=berth: add traefik/behind.yaml to COMPOSE_FILE in .env as well$"
    with pytest.raises(UserError, match=says):
        preflight.check_behind(Stack.read(), "berth")


def test_a_port_that_a_program_has_is_refused_by_its_name() -> None:
    """So that one knows what to stop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=rf"HTTP_PORT={port}: py\S+ \(process \d+\) has"):
            preflight.check_port("HTTP_PORT", "127.0.0.1", port, "berth")
