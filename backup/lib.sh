# What the programs of this folder share. A "history" is an unbroken stretch of one database's
# write-ahead log with the base backups taken in it:
#   /backups/system                      the identifier of the database that these backups are of
#   /backups/proven                      what the last proof found, as the backup service noted it
#   /backups/<system>/<history>/timeline
#   /backups/<system>/<history>/received how far the log has surely been received
#   /backups/<system>/<history>/wal/     the log, in PostgreSQL's own files
#   /backups/<system>/<history>/base/<set>/<backup>/   a full backup, then incremental ones
# Histories, sets and backups are named after the time at which they were complete, by a clock that
# may have been wrong. Histories are in the order of their names, backups in that of the log.
# shellcheck shell=bash

root=/backups
# What the proof service works in and reports to; the backup service reads it.
proofs=/var/lib/postgresql
# Superuser finds names in pg_catalog alone, whatever a role has set for a database or for itself.
PGOPTIONS='-c search_path=pg_catalog -c role=none -c standard_conforming_strings=on'
PGOPTIONS+=' -c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0'
PGOPTIONS+=' -c client_min_messages=warning'
export PGOPTIONS PGHOST=/var/run/postgresql PGUSER=postgres PGCONNECT_TIMEOUT=5 PGAPPNAME=backup
# On three machines, what leads to the one that leads; there it is no superuser who copies.
if [[ -n ${LEADER:-} ]]; then
    PGHOST=$LEADER PGUSER=replicator PGPASSWORD=$(< /run/secrets/replication-password)
    export PGPASSWORD
fi

sql() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 \
        --dbname="${2:-postgres}" --command="$1"
}

# Differences of clocks that mean nothing.
slack=600

# The clock is read nowhere else.
seconds() { date +%s; }

name_of() { date --utc --date="@$1" +%Y%m%dT%H%M%SZ; }

now() { name_of "$(seconds)"; }

# as_seconds NAME: the time that something is named after, in seconds since 1970.
as_seconds() {
    [[ $1 =~ ^(....)(..)(..)T(..)(..)(..)Z ]] || return 1
    date --date="${BASH_REMATCH[1]}-${BASH_REMATCH[2]}-${BASH_REMATCH[3]} ${BASH_REMATCH[4]}:${BASH_REMATCH[5]}:${BASH_REMATCH[6]}Z" +%s
}

age() { echo $(($(seconds) - $(as_seconds "$1"))); }

# is_younger NAME SECONDS: whether it is; what is named after a time to come is not.
is_younger() {
    local is
    is=$(age "$1")
    ((is >= -slack && is < $2))
}

# complaint FILE: what a program complains of; warnings, as of collations, come before that.
complaint() { grep --invert-match --extended-regexp '^(.*: warning|WARNING|NOTICE|DETAIL|HINT):' "$1" || true; }

# spoken SECONDS
spoken() {
    if (($1 < 120)); then echo "$1 s"
    elif (($1 < 7200)); then echo "$(($1 / 60)) min"
    elif (($1 < 172800)); then echo "$(($1 / 3600)) h"
    else echo "$(($1 / 86400)) days"; fi
}

fail() {
    echo "$*" >&2
    exit 1
}

# backups [FOLDER]: all base backups of the database that /backups is of, or those in a folder of
# it; in the order of the log that they begin with, whatever the clock said.
backups() {
    local one label
    find "$root/$(< $root/system)" -mindepth 4 -maxdepth 4 -path "${1:-$root}/*" -path '*/base/*' ! -path '*/unfinished/*' -type d \
        | while read -r one; do
            read -r label < "$one/backup_label" || label=''
            label=${label##*file }
            echo "${label%)} $one"
        done | sort | cut -d' ' -f2-
}

# chain BACKUP: what it takes to rebuild a backup: its set's full one and those up to itself.
chain() {
    local one
    while read -r one; do
        echo "$one"
        [[ $one != "$1" ]] || return 0
    done < <(backups "$(dirname "$1")")
}

# The history that the log is being copied to; fails while it is not.
present_history() { cat /tmp/history 2> /dev/null; }

# Written for a caller that has `set -e` suspended.
# The history that the log of the running database belongs to; begins one where there is none.
find_history() {
    local system timeline slot said newest='' history=''
    IFS='|' read -r system timeline _ < <(
        psql --no-psqlrc --tuples-only --no-align --command=IDENTIFY_SYSTEM \
            --dbname='dbname=postgres replication=database'
    ) || fail 'the database does not answer'
    slot=$(sql "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'backup'") \
        || fail 'the database does not answer'
    # See note in run.sh.
    [[ -z ${LEADER:-} || $(sql 'SHOW synchronous_standby_names') != '*' ]] || fail 'the database waits for a standby'
    if [[ -e /tmp/anew ]]; then
        history=''
    elif [[ -s $root/system ]]; then
        [[ $(< $root/system) == "$system" ]] || fail "BACKUP_DIR holds the backups of another" \
            "database: \`make restore\` brings that back, \`make backup ANEW=yes\` begins with this one"
        history=$(find "$root/$system" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    elif [[ -n $slot ]]; then
        fail "BACKUP_DIR is empty, but this database has been backed up: is its disk mounted?" \
            "If it is by now, \`docker compose restart backup\`; \`make backup ANEW=yes\` begins there"
    fi
    if [[ -z $history || -z $slot || $slot == lost || $(< "$history/timeline") != "$timeline" ]]; then
        newest=$(find "$root/$system" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' 2> /dev/null | sort | tail -n 1)
        history=$(now)
        [[ $history > $newest ]] || history=$(name_of $(($(as_seconds "$newest") + 1)))
        history=$root/$system/$history
        said=$({ mkdir -p "$root/$system" && mkdir "$history"; } 2>&1) \
            || fail "BACKUP_DIR cannot be written to (${said##*: })"
        {
            mkdir "$history/wal" "$history/base" \
                && echo "$timeline" > "$history/timeline" \
                && echo "$system" > $root/system.new \
                && mv $root/system.new $root/system \
                && { [[ -z $slot ]] || sql "SELECT pg_drop_replication_slot('backup')"; } \
                && sql "SELECT pg_create_physical_replication_slot('backup', true)"
        } > /dev/null || {
            rm -rf "$history"
            exit 1
        }
        rm -f /tmp/anew
    fi
    echo "$history"
}
