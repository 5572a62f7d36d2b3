"""The exporter of containers reads control groups as every engine lays them out."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.stack.stack import REPOSITORY

ID = "0123456789abcdef" * 4
V2 = {
    "memory.current": "104857600\n",
    "memory.stat": "anon 41943040\ninactive_file 20971520\nactive_file 10485760\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
}
V1 = {
    "memory/{group}/memory.usage_in_bytes": V2["memory.current"],
    # A hierarchy's own figures, and with its children.
    "memory/{group}/memory.stat": (
        "inactive_file 1\nactive_file 1\ntotal_inactive_file 20971520\ntotal_active_file 10485760\n"
    ),
    "cpuacct/{group}/cpuacct.usage": "2500000000\n",
    "cpu/{group}/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
}
SYSTEMD = f"system.slice/docker-{ID}.scope"
ROOTLESS = f"user.slice/user-1000.slice/user@1000.service/user.slice/docker-{ID}.scope"


@pytest.fixture
def exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """The program, which reads groups of a folder of the test's own."""
    monkeypatch.setenv("PROJECT", "berth")
    monkeypatch.setenv("CGROUPS", str(tmp_path))
    spec = importlib.util.spec_from_file_location(
        "exporter", REPOSITORY / "metrics/exporter/containers.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("group", [SYSTEMD, f"docker/{ID}", ROOTLESS])
@pytest.mark.parametrize("version", [1, 2])
def test_every_layout_is_read(
    group: str,
    version: int,
    tmp_path: Path,
    exporter: Any,  # noqa: ANN401
) -> None:
    """Version 1 and 2, by systemd or by Docker alone, rootless or not: the same figures."""
    files = {f"{group}/{name}": text for name, text in V2.items()} if version == 2 else V1
    for name, text in files.items():
        file = tmp_path / name.format(group=group)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = exporter.Group(ID)
    assert found.cpu_seconds() == 2.5
    # What has not been used for a while is no part of the working set.
    assert found.memory() == (80 * 2**20, 10 * 2**20)


def test_a_container_that_has_gone_has_no_figures(exporter: Any) -> None:  # noqa: ANN401
    """Nor does it stop others from having theirs."""
    found = exporter.Group(ID)
    assert found.cpu_seconds() is None
    assert found.memory() is None
