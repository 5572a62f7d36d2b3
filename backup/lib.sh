# What the programs of this folder share. A "history" is an unbroken stretch of one database's
# write-ahead log with the base backups taken in it:
#   /backups/system                      the identifier of the database that these backups are of
#   /backups/proven                      what the last proof found
#   /backups/<system>/<history>/timeline
#   /backups/<system>/<history>/received how far the log has surely been received
#   /backups/<system>/<history>/wal/     the log, in PostgreSQL's own files
#   /backups/<system>/<history>/base/<set>/<backup>/   a full backup, then incremental ones
# Histories, sets and backups are named after the time at which they were complete.
# shellcheck shell=bash

root=/backups
export PGHOST=/var/run/postgresql PGUSER=postgres PGCONNECT_TIMEOUT=5 PGAPPNAME=backup

sql() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 \
        --dbname="${2:-postgres}" --command="$1"
}

now() { date --utc +%Y%m%dT%H%M%SZ; }

# as_seconds NAME: the time that something is named after, in seconds since 1970.
as_seconds() {
    [[ $1 =~ ^(....)(..)(..)T(..)(..)(..)Z ]] || return 1
    date --date="${BASH_REMATCH[1]}-${BASH_REMATCH[2]}-${BASH_REMATCH[3]} ${BASH_REMATCH[4]}:${BASH_REMATCH[5]}:${BASH_REMATCH[6]}Z" +%s
}

age() { echo $(($(date +%s) - $(as_seconds "$1"))); }

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

# All base backups of the database that /backups is of, oldest first.
backups() {
    find "$root/$(< $root/system)" -mindepth 4 -maxdepth 4 -path '*/base/*' -type d \
        | awk -F/ '{ print $NF, $0 }' | sort | cut -d' ' -f2-
}

# chain BACKUP: what it takes to rebuild a backup: its set's full one and those up to itself.
chain() {
    local one
    for one in "$(dirname "$1")"/*; do
        echo "$one"
        [[ $one != "$1" ]] || return 0
    done
}

# The history that the log is being copied to; fails while it is not.
present_history() { cat /tmp/history 2> /dev/null; }

# Written for a caller that has `set -e` suspended.
# The history that the log of the running database belongs to; begins one where there is none.
find_history() {
    local system timeline slot history=''
    IFS='|' read -r system timeline _ < <(
        psql --no-psqlrc --tuples-only --no-align --command=IDENTIFY_SYSTEM \
            --dbname='dbname=postgres replication=database'
    ) || fail 'the database does not answer'
    slot=$(sql "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'backup'") \
        || fail 'the database does not answer'
    if [[ -e /tmp/anew ]]; then
        history=''
    elif [[ -s $root/system ]]; then
        [[ $(< $root/system) == "$system" ]] || fail "BACKUP_DIR holds the backups of another" \
            "database: \`make restore\` brings that back, \`make backup ANEW=yes\` begins with this one"
        history=$(find "$root/$system" -mindepth 1 -maxdepth 1 -type d | sort | tail -n 1)
    elif [[ -n $slot ]]; then
        fail "BACKUP_DIR is empty, but this database has been backed up: is its disk mounted?" \
            "\`make backup ANEW=yes\` begins there"
    fi
    if [[ -z $history || -z $slot || $slot == lost || $(< "$history/timeline") != "$timeline" ]]; then
        history=$root/$system/$(now)
        { mkdir -p "$root/$system" && mkdir "$history"; } || fail 'BACKUP_DIR cannot be written to'
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
