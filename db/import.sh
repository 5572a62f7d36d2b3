#!/usr/bin/env bash
# import.sh STEP: the steps of `make import` that meet what others wrote: a dump, or the server at
# the other end of a URL.
#
#   source           dumps what the service file on standard input leads to; its rows, counted in
#                    the same snapshot, go to standard error
#   rows DATABASE    the tables that have rows, but for alembic's
#   replay DATABASE  runs a dump, /dump or standard input, as the role that owns the schema
#   count DATABASE   the rows of each table, once they are in the statistics
set -euo pipefail
export LC_ALL=C

fail() {
    echo "$*" >&2
    exit 1
}

as_owner() {
    PGPASSWORD=$(< /run/secrets/database-password)
    # What that role may take for migrations is too short for this.
    PGOPTIONS='-c statement_timeout=0 -c lock_timeout=0 -c client_min_messages=error'
    export PGPASSWORD PGOPTIONS PGHOST=db PGUSER=berth_owner PGDATABASE=$1
}

sql() { psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --file=-; }

# for_each_table QUERY: has psql run it for each table; 1 stands for its whole name, to be shown, 2 for
# its schema's and 3 for its own. What belongs to an extension is in no dump.
for_each_table() {
    printf 'SET search_path = pg_catalog;\nSELECT format($$%s$$,' "$1"
    cat << 'SQL'
    regexp_replace(format('%I.%I', nspname, relname), '[[:cntrl:]]', '?', 'g'), nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND NOT EXISTS (SELECT 1 FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
ORDER BY nspname, relname \gexec
SQL
}

counted() { for_each_table "SELECT concat(%1\$L, ' ', count(*)) FROM ONLY %2\$I.%3\$I"; }

# as_sql: what is in /dump, or comes by standard input.
as_sql() {
    if [[ ! -e /dump ]]; then
        cat
    elif [[ -d /dump || $(head -c 5 /dump | tr -d '\0') == PGDMP ]]; then
        pg_restore --file=- /dump
    elif [[ $(head -c 262 /dump | tail -c 5 | tr -d '\0') == ustar ]]; then
        # Of one that was cut off, pg_restore would leave out rows and say nothing.
        tar --list --file=/dump > /dev/null && pg_restore --file=- /dump
    elif [[ $(head -c 2 /dump | od -An -tx1) == ' 1f 8b' ]]; then
        gunzip --stdout /dump
    else
        cat /dump
    fi
}

# fits BYTES: whether Docker's disk, which is this container's as well, has room for so much.
fits() {
    local free
    free=$(df -Pk / | awk 'END { printf "%.0f", $4 * 1024 }')
    (($1 < free)) ||
        fail "it has $(gigabytes "$1") or more, and Docker's disk has $(gigabytes "$free") free: make room"
}

gigabytes() { awk -v bytes="$1" 'BEGIN { printf "%.1f GB", bytes / 1e9 }'; }

replay() {
    local key reading filtering running size
    if [[ -e /dump ]]; then
        # Unfolded, it is larger.
        size=$(find -L /dump -type f -exec stat -Lc %s {} + | awk '{ sum += $1 } END { printf "%.0f", sum }')
        fits "$size"
    fi
    key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    set +e
    as_sql 2> /tmp/reading \
        | awk -v key="$key" -f /berth/import.awk \
        | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --file=- 2> /tmp/running > /dev/null
    read -r reading filtering running <<< "${PIPESTATUS[*]}"
    set -e
    ((filtering != 4)) || fail 'it is of several databases, by pg_dumpall: give one of pg_dump'
    if ((filtering == 3 || filtering == 0 && running == 0 && reading != 0)); then
        fail "it ends before its end, or is none that pg_dump made$(sed -E 's/^(.*error: )?/: /; q' /tmp/reading)"
    fi
    ((running == 0)) || fail "$(sed -n -E '/(ERROR|FATAL|error): / { s/^psql:[^:]*:([0-9]+): /line \1 of its SQL: /; p; q }' /tmp/running)"
    ((filtering == 0)) || fail "it cannot be read: awk ended with $filtering"
    # Of what has owners, default privileges leave these out.
    sql <<< "SET search_path = pg_catalog;
        SELECT format('GRANT SELECT, UPDATE ON LARGE OBJECT %s TO berth', oid)
        FROM pg_largeobject_metadata \gexec"
}

# In one snapshot with what is counted, though others go on writing.
dump_source() {
    local line size snapshot=''
    umask 077
    cat > /tmp/service
    export PGSERVICEFILE=/tmp/service PGSERVICE=source PGCONNECT_TIMEOUT=10 PGAPPNAME=berth-import
    size=$(sql <<< 'SELECT pg_catalog.pg_database_size(pg_catalog.current_database())') || exit 1
    fits "$size"
    coproc session { sql; }
    {
        echo 'SET statement_timeout = 0;'
        echo 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;'
        counted
        echo "SELECT 'snapshot ' || pg_export_snapshot();"
    } >&"${session[1]}"
    while read -r line <&"${session[0]}"; do
        [[ $line != 'snapshot '* ]] || { snapshot=${line#snapshot } && break; }
        echo "rows $line" >&2
    done
    [[ -n $snapshot ]] || exit 1
    pg_dump --snapshot="$snapshot" --no-owner --no-privileges --encoding=UTF8
}

case $1 in
    source) dump_source ;;
    rows)
        as_owner "$2"
        for_each_table "SELECT %1\$L WHERE %3\$L <> 'alembic_version' AND EXISTS (SELECT FROM ONLY %2\$I.%3\$I)" | sql
        ;;
    replay)
        as_owner "$2"
        replay
        ;;
    count)
        as_owner "$2"
        sql <<< ANALYZE
        counted | sql
        ;;
esac
