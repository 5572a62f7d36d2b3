# Sourced by bash before a script: kills it before its KILL_AT-th command, as a lost host would. Of
# create-secrets.sh, what changes files counts.
# shellcheck shell=bash
if [[ $0 == */restore.sh && ${KILL_AT:-0} != 0 ]]; then
    set -o functrace
    trap '((++commands != KILL_AT)) || kill -KILL $$' DEBUG
elif [[ $0 == */create-secrets.sh && ${KILL_AT:-0} != 0 ]]; then
    commands=0
    set -o functrace
    trap '[[ ! $BASH_COMMAND =~ ^(ln|mv|rm)\  ]] || ((++commands != KILL_AT)) || kill -KILL $$' DEBUG
fi
