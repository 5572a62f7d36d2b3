#!/usr/bin/env bash
# attempt.sh base|verify: run that program, and leave its last words if it fails: an alarm.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

# One at a time.
exec 9> /tmp/lock
flock 9
alarm=/tmp/$1
[[ $1 != verify ]] || alarm=$proofs/$1
if nice bash "/berth/$1.sh" 2>&1 | tee "/tmp/$1.said"; then
    rm -f "$alarm"
else
    complaint "/tmp/$1.said" | tail -n 3 | tr '\n' ' ' > "$alarm"
    exit 1
fi
