#!/usr/bin/env bash
# attempt.sh base|verify: run that program, and leave its last words in /tmp if it fails: an alarm.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

if nice bash "/berth/$1.sh" 2>&1 | tee "/tmp/$1.said"; then
    rm -f "/tmp/$1"
else
    complaint "/tmp/$1.said" | tail -n 3 | tr '\n' ' ' > "/tmp/$1"
    exit 1
fi
