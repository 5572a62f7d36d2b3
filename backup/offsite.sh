#!/bin/sh
# The offsite service: copies BACKUP_DIR, and volumes of the user's own that are mounted below /volumes,
# with restic, encrypted and deduplicated, again and again.
# `offsite.sh fetch` brings the newest copy back into an empty BACKUP_DIR and into empty volumes,
# `offsite.sh volumes [TIME]` into those alone, as they were at a moment such as "2026-11-21 20:00:00".
# The image has restic and a plain shell; /keys holds `password`, and if need be `env` (variables
# such as AWS_ACCESS_KEY_ID) and `id` with `known_hosts` for SFTP.
set -u

say() { echo "$*" >&2; }

if [ ! -s /keys/password ]; then
    say 'OFFSITE_KEYS must be a folder with a file `password` in it, of which you keep a copy elsewhere'
fi
export RESTIC_PASSWORD_FILE=/keys/password RESTIC_CACHE_DIR=/cache RESTIC_PROGRESS_FPS=0
if [ -f /keys/env ]; then
    set -a
    . /keys/env
    set +a
fi

offsite() {
    if [ -f /keys/id ]; then
        restic -o sftp.args='-i /keys/id -o UserKnownHostsFile=/keys/known_hosts' "$@"
    else
        restic "$@"
    fi
}

# Only once: an empty target later on is a disk that is not mounted, or somebody's mistake.
begin() {
    [ "$(cat /cache/begun 2> /dev/null)" != "$RESTIC_REPOSITORY" ] || return 0
    offsite cat config > /dev/null 2>&1 || offsite init || return 1
    echo "$RESTIC_REPOSITORY" > /cache/begun
}

copy() {
    begin || return 1
    offsite unlock --quiet || return 1
    set -- backup --quiet --host=berth --exclude=/backups/forgotten --exclude=/backups/lost+found \
        --exclude='/backups/**/unfinished' /backups
    [ ! -d /volumes ] || set -- "$@" /volumes
    # Something may be forgotten while it is being copied: then once more.
    offsite "$@" || offsite "$@" || return 1
    if [ "$(cat /cache/forgot 2> /dev/null)" != "$(date +%F)" ]; then
        # By days on which there were copies, since a clock that is wrong makes old in a moment.
        offsite forget --quiet --prune --group-by=host --keep-within=1d \
            "--keep-daily=$((KEEP_DAYS + 2))" || return 1
        date +%F > /cache/forgot
    fi
}

fetch() {
    if [ "$1" = fetch ] && [ -e /backups/system ]; then
        say 'BACKUP_DIR holds backups already: restore from them, or give it an empty folder'
        return 1
    fi
    # The latest, but for one from a time to come, when the clock had been wrong.
    latest=$(offsite snapshots --no-lock --host=berth --compact | awk -v until="${2:-$(date '+%F %T')}" \
        'length($1) == 8 && $2 ~ /^[0-9-]+$/ && $2 " " $3 <= until { latest = $1 } END { print latest }')
    if [ -z "$latest" ]; then
        say "RESTIC_REPOSITORY holds no copies${2:+ from before $2}"
        return 1
    fi
    case $1 in
        fetch) set -- --include=/backups ;;
        *) set -- ;;
    esac
    for volume in /volumes/*; do
        if [ -n "$(ls -A "$volume" 2> /dev/null)" ]; then
            say "${volume#/volumes/} holds files: it stays as it is"
        elif [ -d "$volume" ]; then
            set -- "$@" "--include=$volume"
        fi
    done
    [ $# -eq 0 ] || offsite restore "$latest" --no-lock --quiet --host=berth --target=/ "$@"
}

if [ $# -gt 0 ]; then
    fetch "$@"
    exit
fi

trap 'exit 0' TERM INT
while true; do
    if copy > /tmp/said 2>&1; then
        rm -f /tmp/alarm
        date +%s > /tmp/copying && mv /tmp/copying /tmp/copied
    else
        grep -m 1 -i -E 'fatal|error|unable' /tmp/said > /tmp/alarm || tail -n 1 /tmp/said > /tmp/alarm
        say "not copied: $(cat /tmp/alarm)"
    fi
    sleep "$EVERY_SECONDS" &
    wait
done
