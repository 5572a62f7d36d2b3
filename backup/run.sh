#!/usr/bin/env bash
# The backup service: copies the write-ahead log as it is written, takes base backups on a
# schedule, and notes which of them the proof service has proven. What goes wrong is tried again;
# health.sh says what it is.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

stream() {
    local history synchronous=()
    [[ $SYNCHRONOUS != on ]] || synchronous=(--synchronous)
    while true; do
        rm -f /tmp/history
        if history=$(find_history 2> /tmp/said); then
            echo "$history" > /tmp/history.new
            mv /tmp/history.new /tmp/history
            echo "copying the log to $history"
            # What a full disk left: a file that was to be filled with zeros before anything else.
            find "$history/wal" -name '*.partial' ! -size 16777216c -delete
            # Stops when the connection or the disk does, and goes on where it had been.
            pg_receivewal --directory="$history/wal" --slot=backup --no-loop \
                --status-interval=1 "${synchronous[@]}" > /tmp/said 2>&1 || true
        fi
        # It stays for the alarm until the next try has ended, too.
        complaint /tmp/said | sed -n 1p | tee /tmp/stream
        sleep 1
    done
}

# Notes how far the log has surely come, which a restore must reach; and gives it something to say,
# so that there is a moment to restore to in every minute. Watches the clock.
note() {
    local history received began is
    began=$(beside_uptime)
    while sleep 5; do
        is=$(($(beside_uptime) - began))
        if ((is > slack)); then
            echo "the clock jumped $(spoken $is) ahead" > /tmp/clock
        elif ((is < -slack)); then
            echo "the clock jumped $(spoken $((-is))) back" > /tmp/clock
        else
            rm -f /tmp/clock
        fi
        # As long as any standby will do, a copy of the log would be taken for one.
        [[ -z ${LEADER:-} || $(sql 'SHOW synchronous_standby_names' 2> /dev/null) != '*' ]] \
            || sql "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                WHERE slot_name = 'backup'" > /dev/null 2>&1 || true
        ((SECONDS % 60 >= 5)) || sql 'SELECT pg_current_xact_id()' > /dev/null 2>&1 || true
        history=$(present_history) || continue
        received=$(sql "SELECT write_lsn FROM pg_stat_replication
            WHERE application_name = 'backup' AND state = 'streaming'" 2> /dev/null) || continue
        [[ -n $received && $(present_history) == "$history" ]] || continue
        # It was written; a crash of the host must not make it less.
        sync "$history/wal/"*.partial 2> /dev/null || continue
        wait_for_copy "$SYNCHRONOUS" || true
        { echo "$received" > "$history/received.new" && mv "$history/received.new" "$history/received"; } \
            2> /dev/null || true
    done
}

# What the clock says beyond the seconds since the host was started.
beside_uptime() {
    local uptime
    read -r uptime _ < /proc/uptime
    echo $(($(seconds) - ${uptime%.*}))
}

# wait_for_copy on|off: whether a write is acknowledged only once it is copied.
wait_for_copy() {
    local wanted='' is
    [[ -z ${LEADER:-} ]] || return 0 # it waits for a standby
    [[ $1 != on ]] || wanted=backup
    is=$(sql 'SHOW synchronous_standby_names') || return 1
    [[ $is != "$wanted" ]] || return 0
    sql "ALTER SYSTEM SET synchronous_standby_names = '$wanted'" \
        && sql 'SELECT pg_reload_conf()' > /dev/null
}

# Notes what the proof service has found, in BACKUP_DIR, which that cannot write to. A proof of what
# is not there, or in other words than those of verify.sh, is none.
note_proofs() {
    local found noted='' is='^[0-9TZ]{16} [0-9TZ]{16} [0-9]+ rows, schema at [A-Za-z0-9_?, -]{0,100}$'
    while sleep 0.5; do
        [[ -f $proofs/proven && ! -L $proofs/proven ]] || continue
        found=$(timeout 2 head -c 200 $proofs/proven 2> /dev/null) || continue
        if [[ $found != "$noted" && $found =~ $is ]] \
            && backups 2> /dev/null | grep "/$(cut -d' ' -f2 <<< "$found")$" > /dev/null; then
            { echo "$found" > $root/proven.new && mv $root/proven.new $root/proven; } 2> /dev/null || continue
            noted=$found
        fi
    done
}

# Writes what there is for Prometheus, which the node exporter reads.
tell() {
    local kind one
    while true; do
        {
            echo "berth_backup_base_seconds_max $((EVERY_HOURS * 7200 + 3600))"
            echo "berth_backup_proof_seconds_max $((PROVEN_HOURS * 3600))"
            for kind in full incremental; do
                one=$(backups | awk -F/ -v kind=$kind '
                    { is = seen[$(NF - 1)]++ ? "incremental" : "full" }
                    is == kind { last = $NF }
                    END { print last }')
                [[ -z $one ]] || echo "berth_backup_last_success_timestamp_seconds{kind=\"$kind\"} $(as_seconds "$one")"
            done
            one=$(stat --format=%Y "$(present_history)/received") \
                && echo "berth_backup_last_success_timestamp_seconds{kind=\"log\"} $one"
            [[ ! -s $root/proven ]] \
                || echo "berth_backup_last_proof_timestamp_seconds $(as_seconds "$(cut -d' ' -f1 $root/proven)")"
        } > /tmp/state 2> /dev/null || true
        cat /tmp/state > /backup-state/backup.prom.new && mv /backup-state/backup.prom.new /backup-state/backup.prom
        sleep 15
    done
}

schedule() {
    local history newest
    while sleep 2; do
        # Either may be gone between two looks: a lost connection, a disk that is taken away.
        history=$(present_history) || continue
        newest=$(backups "$history" 2> /dev/null | tail -n 1) || continue
        newest=${newest##*/}
        if [[ -z $newest ]] || ! is_younger "$newest" $((EVERY_HOURS * 3600)); then
            bash /berth/attempt.sh base || { sleep 30; continue; }
        fi
    done
}

stop() {
    # Stopped on purpose: writes need not wait for what will not come.
    wait_for_copy off || true
    trap '' TERM
    kill -TERM 0
    exit 0
}

trap stop TERM INT
stream &
note &
note_proofs &
tell &
schedule &
wait -n
fail 'one of the loops ended, which it should not'
