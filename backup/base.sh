#!/usr/bin/env bash
# Takes a base backup, an incremental one where its set is young enough; then forgets old ones.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

exec 9> /tmp/lock
flock 9

if [[ ${ANEW:-} == yes ]]; then
    # The stream begins anew: it alone makes and drops the slot.
    touch /tmp/anew
    for ((tries = 0; tries < 300; tries++)); do
        if [[ -e /tmp/anew ]]; then
            sql "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                WHERE slot_name = 'backup'" > /dev/null || true
        elif present_history > /dev/null; then
            break
        fi
        sleep 0.1
    done
    rm -f /tmp/anew
fi
history=$(present_history) || fail 'the log is not being copied yet'
staging=$history/unfinished
rm -rf "$staging"
trap 'rm -rf "$staging"' EXIT

take() {
    PGOPTIONS='-c client_min_messages=warning' pg_basebackup --pgdata="$staging" \
        --checkpoint=fast --wal-method=none --max-rate="$MAX_RATE" "$@"
}

set=$(find "$history/base" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
kind=full
if [[ -n $set ]] && (($(age "${set##*/}") < FULL_DAYS * 86400)); then
    last=$(find "$set" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    if take --incremental="$last/backup_manifest"; then
        kind=incremental
    else
        rm -rf "$staging"
    fi
fi
[[ $kind == incremental ]] || take

# It is worth nothing without the log that was written meanwhile.
end=$(sql 'SELECT pg_current_wal_lsn()')
arrived() {
    [[ $(present_history) == "$history" ]] || return 1
    [[ $(sql "SELECT write_lsn >= '$end' FROM pg_stat_replication WHERE application_name = 'backup'") == t ]]
}
tries=0
until arrived; do
    ((tries++ < 600)) || fail 'the log that belongs to the base backup does not arrive'
    sleep 0.1
done

name=$(now)
[[ $kind == incremental ]] || set=$history/base/$name
mkdir -p "$set"
mv "$staging" "$set/$name"
sync --file-system "$set"
echo "$kind base backup $name, $(du --summarize --human-readable "$set/$name" | cut -f1)"

# A set is needed until a later one is older than the days to keep; the log, by the oldest set.
oldest=$(date --utc --date="-$KEEP_DAYS days" +%Y%m%dT%H%M%SZ)
mapfile -t sets < <(find "$root/$(< $root/system)" -mindepth 3 -maxdepth 3 -path '*/base/*' -type d | awk -F/ '{ print $NF, $0 }' | sort | cut -d' ' -f2-)
for ((i = 0; i + 1 < ${#sets[@]}; i++)); do
    next=${sets[i + 1]}
    [[ ${next##*/} < $oldest ]] || break
    rm -rf "${sets[i]}"
    echo "forgot the backups of ${sets[i]##*/}"
done
for old in "$root/$(< $root/system)"/*; do
    first=$(find "$old/base" -mindepth 2 -maxdepth 2 -type d 2> /dev/null | sort | head -n 1) || first=''
    if [[ -n $first ]]; then
        pg_archivecleanup "$old/wal" "$(sed -n 's/^START WAL LOCATION: .*(file \(.*\))$/\1/p' "$first/backup_label")"
    elif [[ $old < $history ]]; then
        rm -rf "$old"
    fi
done
