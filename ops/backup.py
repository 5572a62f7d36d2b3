"""`make backup` takes a base backup now, `make verify-backup` proves that one can be restored."""

import sys

from host.commands import carried_out
from ops import backups

if __name__ == "__main__":
    sys.exit(carried_out(lambda: backups.run(sys.argv[1])))
