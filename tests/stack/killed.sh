# Sourced by bash before restore.sh: kills it before its KILL_AT-th command, as a lost host would.
# shellcheck shell=bash
if [[ $0 == */restore.sh && ${KILL_AT:-0} != 0 ]]; then
    set -o functrace
    trap '((++commands != KILL_AT)) || kill -KILL $$' DEBUG
fi
