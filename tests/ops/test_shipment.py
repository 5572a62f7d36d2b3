"""What is brought takes its place as a whole, whatever became of those who began before."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ops.docker import ROOT
from ops.shipment import _UNPACK, Files
from ops.ssh import Server


class Here(Server):
    """This machine, without an ssh between."""

    def feed(self, write: Callable[[IO[bytes]], None], *command: str) -> str:
        """Run a command that reads what is written."""
        with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
            assert child.stdin
            try:
                with child.stdin:
                    write(child.stdin)
                assert child.wait(timeout=20) == 0
            finally:
                child.kill()
        return ""


def test_what_a_broken_line_has_begun_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Its other end goes on to wait for the rest, for hours."""
    (tmp_path / "new").write_text("of now")
    base = tmp_path / "there"
    waiting = [sys.executable, "-c", _UNPACK, str(base)]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE) as broken:
        assert broken.stdin
        broken.stdin.write(b"half of it")
        broken.stdin.flush()
        Files(str(base), {"berth/new": tmp_path / "new"}, b"A=1\n").bring(Here("here", ()))
        broken.kill()
    assert (base / "berth/new").read_text() == "of now"
    assert (base / ROOT.name / ".env").read_text() == "A=1\n"
