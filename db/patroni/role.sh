#!/usr/bin/env bash
# role.sh EVENT ROLE SCOPE: a standby keeps no log for backups, which are taken of the primary.
set -euo pipefail
[[ $2 == replica ]] || exit 0
for ((tries = 0; tries < 60; tries++)); do
    ! psql --no-psqlrc --quiet --output=/dev/null --dbname=postgres --command="
        SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
        WHERE slot_name = 'backup' AND NOT active" 2> /dev/null || break
    sleep 1
done
