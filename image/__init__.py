"""How an image is made of any app: runs while it is built, and in part on the host."""

import sys

# What Berth itself runs on.
OLDEST = (3, 11)

if sys.version_info < OLDEST:
    sys.exit(
        f"berth: PYTHON_IMAGE has Python {sys.version_info[0]}.{sys.version_info[1]}, and Berth "
        f"needs {OLDEST[0]}.{OLDEST[1]} or newer: set another in .env"
    )
