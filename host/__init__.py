"""What a machine without Docker, or without a container registry, needs to run Berth."""

import os
import subprocess
import sys

# All that a Python before 3.11 reads, with ops/__init__.py: it goes over to a newer one, or ends.
if sys.version_info < (3, 11):  # noqa: UP036
    way_out = "put a newer one first on PATH"
    if os.path.exists("/proc/self/cmdline"):  # noqa: PTH110 - there is none on macOS
        way_out = "install python3.11, which is then found by itself"
        with open("/proc/self/cmdline") as file:  # noqa: PTH123
            arguments = file.read().split("\0")[1:-1]
        for newer in ("python3.14", "python3.13", "python3.12", "python3.11"):
            try:
                subprocess.check_output([newer, "-c", ""], stderr=subprocess.DEVNULL)
            except (OSError, subprocess.CalledProcessError):
                continue
            os.execvp(newer, [newer] + arguments)  # noqa: RUF005, S606
    sys.exit(
        "berth: python3 is %d.%d, and Berth's programs need 3.11 or newer: " % sys.version_info[:2]  # noqa: UP031
        + way_out
    )
