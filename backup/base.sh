#!/usr/bin/env bash
# Takes a base backup, an incremental one where its set is young enough; then forgets old ones.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

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
    pg_basebackup --pgdata="$staging" \
        --checkpoint=fast --wal-method=none --max-rate="$MAX_RATE" "$@"
}

last=$(backups "$history" | tail -n 1)
set=${last%/*}
kind=full
if [[ -n $last ]] && is_younger "${set##*/}" $((FULL_DAYS * 86400)); then
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

# Two in one second would have one name.
while name=$(now) && [[ $name == "${last##*/}" ]]; do sleep 0.1; done
[[ $kind == incremental ]] || set=$history/base/$name
mkdir -p "$set"
mv --no-target-directory "$staging" "$set/$name"
sync --file-system "$set"
echo "$kind base backup $name, $(du --summarize --human-readable "$set/$name" | cut -f1)"

# A set is needed until a later one is older than the days to keep; the log, by the oldest set. A
# clock that is wrong makes old in a moment, but not days on which there were backups.
forget() {
    rm -rf "$root/forgotten" "$root/scratch"
    local all earliest oldest days needed one i
    [[ ! -s /tmp/clock ]] || return 0
    mapfile -t all < <(backups)
    oldest=$(name_of $(($(seconds) - KEEP_DAYS * 86400)))
    needed=$((KEEP_DAYS * 24 / (EVERY_HOURS > 24 ? EVERY_HOURS : 24) + 2))
    earliest=$(now)
    declare -A days=()
    for ((i = ${#all[@]} - 1; i > 0; i--)); do
        one=${all[i]##*/}
        # What came before another is at least as old, whatever its name.
        [[ ! $one > $earliest ]] || one=$earliest
        earliest=$one
        days[${one:0:8}]=
        if [[ ${all[i]%/*} != "${all[i - 1]%/*}" && $earliest < $oldest ]] && ((${#days[@]} >= needed)); then
            printf '%s\n' "${all[@]:0:i}" | xargs --max-args=1 dirname | uniq | while read -r one; do
                # At once, for whoever proves it at this moment.
                mv --no-target-directory "$one" "$root/forgotten"
                rm -rf "$root/forgotten"
                echo "forgot the backups of ${one##*/}"
            done
            return 0
        fi
    done
}
forget
for old in "$root/$(< $root/system)"/*; do
    first=$(backups "$old" | sed -n 1p)
    if [[ -n $first ]]; then
        pg_archivecleanup "$old/wal" "$(sed -n 's/^START WAL LOCATION: .*(file \(.*\))$/\1/p' "$first/backup_label")"
    elif [[ $old < $history ]]; then
        rm -rf "$old"
    fi
done
