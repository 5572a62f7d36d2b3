# Rebuilding a database from the backups, and checking it; sourced by those that do.
# shellcheck shell=bash

scratch_socket=/tmp

# enough_space FOLDER BYTES
enough_space() {
    (($(df --output=avail --block-size=1 "$1" | tail -n 1) > $2 * 11 / 10)) \
        || fail "the disk of $1 has less than the $(($2 / 1048576)) MiB free that it takes"
}

# recover FOLDER [MOMENT]: make a database as it was at a moment, or as late as can be; it then
# runs, reachable from inside this container only.
recover() {
    local target=$1 moment=${2:-} backup='' one limit='' options timeline lsn received newest file size later
    if [[ -n $moment ]]; then
        limit=$(date --utc --date="$moment" +%Y%m%dT%H%M%SZ) || fail "TO=$moment is no moment"
    fi
    [[ -s $root/system ]] || fail 'BACKUP_DIR holds no backups'
    while read -r one; do
        [[ -n $limit && ${one##*/} > $limit ]] || backup=$one
    done < <(backups)
    [[ -n $backup ]] || fail "no base backup is older than ${moment:-now}: the first is" \
        "$(backups | sed -n 1p | xargs -r basename)"
    [[ $(< "$backup/PG_VERSION") == "${PG_VERSION%%.*}" ]] || fail "the backup is of PostgreSQL" \
        "$(< "$backup/PG_VERSION"), the image of ${PG_VERSION%%.*}: set POSTGRES_IMAGE"

    while read -r one; do
        pg_verifybackup --no-parse-wal --quiet "$one" || fail "the base backup ${one#"$root"/} is damaged"
    done < <(chain "$backup")
    # Now, not later: a log that is being written goes on.
    received=$(cat "${backup%/base/*}/received" 2> /dev/null || echo 0/0)
    newest=$(newest_log "${backup%/base/*}/wal")
    rm -rf "$target"
    mkdir -p "$(dirname "$target")"
    size=$(chain "$backup" | xargs du --summarize --total --block-size=1 | tail -n 1 | cut -f1)
    enough_space "$(dirname "$target")" "$size"
    # shellcheck disable=SC2046
    pg_combinebackup --output="$target" $(chain "$backup") || fail "the base backup ${backup##*/} cannot be rebuilt"
    touch "$target/recovery.signal"
    # Whoever is in this container may log in as any role.
    echo 'local all all trust' > /tmp/pg_hba.conf
    # In one line, for the shell that pg_ctl hands it to.
    options="-c restore_command='bash /berth/fetch.sh %f %p' -c hot_standby=off"
    options+=" -c recovery_target_action=promote -c synchronous_standby_names=''"
    options+=" -c listen_addresses='' -c unix_socket_directories=$scratch_socket"
    options+=" -c hba_file=/tmp/pg_hba.conf -c autovacuum=off -c max_logical_replication_workers=0"
    options+=" -c shared_buffers=${SHARED_BUFFERS:-128MB}"
    if [[ -n $moment ]]; then
        options+=" -c recovery_target_time='$moment' -c recovery_target_timeline=current"
    fi
    echo "recovering ${backup##*/} up to ${moment:-the end of the log}"
    export PGHOST=$scratch_socket
    pg_ctl start --silent --wait --timeout=600 --pgdata="$target" --log="$target/recovery.log" \
        --options="$options" || true
    until sql 'SELECT 1' > /dev/null 2>&1; do
        if ! pg_ctl status --pgdata="$target" > /dev/null; then
            grep FATAL "$target/recovery.log" | tail -n 2 >&2 || true
            fail 'PostgreSQL does not recover that far: without TO it recovers all there is'
        fi
        sleep 0.2
    done

    # A damaged log looks like its end to PostgreSQL; but it is known how far it went. The last
    # segment may lack its end, after a crash of the host; log that comes later, no crash explains.
    read -r timeline lsn _ < <(find "$target/pg_wal" -name '*.history' | sort | tail -n 1 \
        | xargs grep -E '^[0-9]' | tail -n 1)
    if [[ -z $moment ]]; then
        file=$(printf '%08X%s' "$timeline" "$(sql "SELECT substr(pg_walfile_name('$lsn'), 9)")")
        later=''
        [[ ${newest:0:8} != "${file:0:8}" || ! $newest > $file.partial ]] || later=$newest
        if [[ -n $later || ($(sql "SELECT '$lsn'::pg_lsn >= '$received'") == f && ${PROVING:-} == yes) ]] \
            && [[ ${ACCEPT_LOSS:-} != yes ]]; then
            fail "the log is damaged in wal/$file: it ends at $lsn, though it was received up to" \
                "${later:-$received}. \`make restore ACCEPT_LOSS=yes\` restores what was before"
        fi
        sql "SELECT format('  %s bytes of the log are missing that had been received',
            '$received'::pg_lsn - '$lsn') WHERE '$received'::pg_lsn > '$lsn'"
        [[ -z $later ]] || echo "  all that was written after it is lost, up to $later"
    fi
    sql "SELECT concat('  the log ends at $lsn', ', its last write is of ' || pg_last_xact_replay_timestamp())"
}

# newest_log FOLDER: the last segment in it that holds anything.
newest_log() {
    local one
    while read -r one; do
        if [[ -n $(tr --delete '\0' < "$one" 2> /dev/null | head -c 1 | od -An -tx1) ]]; then
            echo "${one##*/}"
            break
        fi
    done < <(find "$1" -name '????????????????????????*' ! -name '*.history' | sort --reverse)
}

databases() { sql 'SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1'; }

# count [ROLE]: one line for each table of every database, with its rows.
count() {
    local database
    for database in $(databases); do
        # Tables alone, without those that inherit: views and rules are code.
        sql_as "${1:-postgres}" "$database" << 'SQL' || fail "$database: a table cannot be read"
SELECT format($$SELECT concat('  ', current_database(), ': ', %L, ' has ', count(*), ' rows') FROM ONLY %I.%I$$,
    regexp_replace(format('%I.%I', nspname, relname), '[[:cntrl:]]', '?', 'g'), nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE (relkind = 'r' OR relkind = 'm' AND relispopulated)
    AND nspname <> 'pg_catalog' AND nspname <> 'information_schema' AND nspname !~ '^pg_t(oast|emp)'
ORDER BY nspname, relname \gexec
SQL
    done
}

# sql_as ROLE DATABASE: run what standard input says.
sql_as() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 \
        --username="$1" --dbname="$2" --file=-
}

# check: look at every row and index of the recovered database, and say what it holds. What its
# roles could have made is read by a role that may do nothing else.
check() {
    local reader=berth_reader database said tables kind revision
    sql "DROP ROLE IF EXISTS $reader"
    sql "CREATE ROLE $reader LOGIN BYPASSRLS IN ROLE pg_read_all_data"
    for database in $(databases); do
        sql "GRANT CONNECT ON DATABASE $database TO $reader"
        # Only its own of today: others may have put functions beside one that was there.
        sql 'DROP EXTENSION IF EXISTS amcheck' "$database"
        if ! said=$(pg_amcheck --install-missing=pg_catalog --database="$database" 2>&1); then
            fail "$database is damaged: ${said//$'\n'/ }"
        fi
        sql 'DROP EXTENSION IF EXISTS amcheck' "$database"
    done
    tables=$(count $reader)
    kind=$(sql "SELECT relkind FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relname = 'alembic_version'" "$DATABASE")
    revision="unknown, since alembic_version is no table"
    [[ -n $kind ]] || revision="none of alembic's"
    if [[ $kind == r ]]; then
        revision=$(echo "SELECT string_agg(version_num, ', ') FROM ONLY public.alembic_version" \
            | timeout 60 psql --no-psqlrc -qtA --username=$reader --dbname="$DATABASE") || revision=unknown
        revision=${revision//[^[:alnum:]_, -]/?}
    fi
    for database in $(databases); do
        sql "REVOKE CONNECT ON DATABASE $database FROM $reader"
    done
    sql "DROP ROLE $reader"
    echo "$tables"
    echo "  $DATABASE: the schema is at ${revision:0:100}"
    found="$(awk '{ rows += $(NF - 1) } END { print rows + 0 }' <<< "$tables") rows, schema at ${revision:0:100}"
}

# finish FOLDER: stop the recovered database, and leave in it nothing of the recovery.
finish() {
    pg_ctl stop --silent --wait --mode=fast --pgdata="$1"
    rm -f "$1/recovery.log"
}
