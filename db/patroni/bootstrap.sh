#!/usr/bin/env bash
# Makes the first member's database of the newest backup and all of its log.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh
# shellcheck source=backup/recover.sh
source /berth/recover.sh
recover "$PGDATA"
check
finish "$PGDATA"
