#!/usr/bin/env bash
# restore.sh STEP: the steps of `make restore` and `make upgrade-db`, inside db's volume. The new
# database is made beside the old, and the two change places by renaming. Wherever that is killed,
# a name tells what is in a folder, and db/start.sh finds a database:
#   restored        the new one until it is in use; it can be made again
#   before-restore  the old one until the new one serves
#   deleted         what is being deleted
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh
# shellcheck source=backup/recover.sh
source /berth/recover.sh

volume=/var/lib/postgresql
restored=$volume/restored
old=$volume/before-restore
deleted=$volume/deleted

exec 9> $volume/.restore-lock
flock --nonblock 9 || fail 'another restore is at work in this volume: wait until it ends'

# described FOLDER: the database in it, for a person who has to choose.
described() {
    [[ -s $1/PG_VERSION ]] || { echo 'no database'; return; }
    echo "PostgreSQL $(< "$1/PG_VERSION"), last checkpoint $(date --utc --reference="$1/global/pg_control" '+%F %T') UTC"
}

# system FOLDER: the identifier of the database in it, which begins the file in every version.
system() { od --address-radix=n --format=u8 --read-bytes=8 "$1/global/pg_control" | tr -d ' '; }

# place FOLDER NAME: rename it, for good.
place() {
    mv --no-target-directory "$1" "$2"
    sync $volume "$(dirname "$PGDATA")"
}

look() {
    # As db/start.sh does.
    [[ -s $PGDATA/PG_VERSION || ! -s $old/PG_VERSION ]] || place $old "$PGDATA"
    [[ ! -e $old ]] || fail "a restore that did not end left the database from before it" \
        "($(described $old)) beside the present one ($(described "$PGDATA")):" \
        "\`docker compose run --rm restore keep\` deletes it; \`docker compose stop api db\`," \
        "\`docker compose run --rm restore back\` and \`docker compose up -d\` return to it"
}

# make_room FOR: clear what an earlier try left.
make_room() {
    look
    rm -rf $restored $deleted
}

stopped() {
    local answer=0
    pg_isready --quiet || answer=$?
    ((answer == 2)) || fail 'the database runs: `docker compose stop db` first'
}

# made_by EDIT: make the database of /tmp/database and /tmp/schema, in edited words.
made_by() {
    pg_restore --create --use-list=/tmp/database --file=- /tmp/schema | sed -E "$1" \
        | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=$scratch_socket --dbname=postgres > /dev/null
}

# bring DATABASE: from the old server to the new. A dump runs what is in it, so the database's owner
# makes that; a superuser makes the database, and the extensions that belong to one.
bring() {
    local database=$1 owner is_super extension schema as
    local -x PGOPTIONS='-c search_path=pg_catalog'
    IFS='|' read -r owner is_super < <(sql "SELECT rolname, rolsuper FROM pg_database
        JOIN pg_roles ON pg_roles.oid = datdba WHERE datname = current_database()" "$database")
    if [[ $is_super == t && $(sql "SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relkind IN
            ('r', 'p', 'v', 'm', 'f') AND oid NOT IN (SELECT objid FROM pg_depend
                WHERE deptype = 'e' AND classid = 'pg_class'::regclass)" "$database") != 0 ]]; then
        fail "the database $database belongs to $owner, and nothing is copied as a superuser:" \
            "give it and its tables to another role, by ALTER DATABASE and ALTER TABLE … OWNER TO"
    fi
    # Three parts: the database with its settings, its extensions, and what its owner made.
    pg_dump --format=custom --create --schema-only --file=/tmp/schema "$database"
    pg_restore --create --list /tmp/schema > /tmp/list
    grep -E '^[0-9]+; [0-9]+ [0-9]+ (DATABASE|DATABASE PROPERTIES|ACL) - (DATABASE )?'"$database " /tmp/list > /tmp/database || true
    grep -v -E '^[0-9]+; [0-9]+ [0-9]+ (DATABASE|DATABASE PROPERTIES|(ACL|COMMENT) - DATABASE|EXTENSION|COMMENT - EXTENSION) ' \
        /tmp/list > /tmp/made
    if [[ $database == postgres || $database == template1 ]]; then
        made_by '/^CREATE DATABASE /d'
    elif ! made_by '' 2> /dev/null; then
        # The old image has a locale that this one lacks.
        made_by '/^CREATE DATABASE /s/ LOCALE_PROVIDER = .*;$/;/'
        echo "  $database: sorts as C.UTF-8 from now on, since this image does not know its old locale"
    fi
    while IFS='|' read -r extension schema as; do
        [[ $as != owner ]] || as=$owner
        if [[ $schema != pg_catalog && $schema != public ]]; then
            PGHOST=$scratch_socket PGUSER=$owner sql \
                "SET client_min_messages = warning; CREATE SCHEMA IF NOT EXISTS $schema" "$database"
            sed --in-place "/ SCHEMA - $schema /d" /tmp/made
        fi
        PGHOST=$scratch_socket PGUSER=$as sql "CREATE EXTENSION $extension SCHEMA $schema" "$database"
    done < <(sql "SELECT quote_ident(extname), quote_ident(nspname),
            CASE WHEN rolsuper THEN 'postgres' ELSE 'owner' END
        FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
        JOIN pg_roles ON pg_roles.oid = extowner
        WHERE extname <> 'plpgsql' ORDER BY pg_extension.oid" "$database")
    [[ $is_super == f ]] || return 0
    local to=(--host=$scratch_socket --username="$owner" --dbname="$database")
    # A mark of newer minor releases on columns, which an older one takes for an unknown parameter.
    pg_restore --no-owner --section=pre-data --use-list=/tmp/made --file=- /tmp/schema \
        | sed -E '/^ALTER .* COLUMN .* SET \(pg_attver=[0-9]+\);$/d; /^ALTER .* COLUMN .* SET \(/s/pg_attver=[0-9]+, |, pg_attver=[0-9]+//' \
        | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 "${to[@]}" > /dev/null \
        || fail "the database $database cannot be made by its owner $owner"
    pg_dump --format=custom --section=data "$database" \
        | pg_restore --no-owner --exit-on-error --section=data "${to[@]}" \
        || fail "the rows of the database $database cannot be copied by its owner $owner"
    pg_restore --no-owner --exit-on-error --section=post-data --use-list=/tmp/made "${to[@]}" /tmp/schema \
        || fail "the indexes of the database $database cannot be made by its owner $owner"
    PGOPTIONS='-c client_min_messages=error' vacuumdb --analyze-only --quiet "${to[@]}"
}

case $1 in
    look)
        look
        ;;
    recover)
        make_room
        trap 'pg_ctl stop --silent --mode=immediate --pgdata=$restored > /dev/null 2>&1; rm -rf $restored' EXIT
        recover $restored "${TO:-}"
        check
        finish $restored
        trap - EXIT
        ;;
    swap)
        look
        stopped
        [[ $(LC_ALL=C pg_controldata $restored | sed -n 's/^Database cluster state: *//p') == 'shut down' ]] \
            || fail 'there is no whole database to put in its place'
        mkdir -p "$(dirname "$PGDATA")"
        [[ ! -e $PGDATA ]] || place "$PGDATA" $old
        place $restored "$PGDATA"
        ;;
    back) # the new one does not serve
        stopped
        if [[ -s $old/PG_VERSION ]]; then
            rm -rf $restored
            [[ ! -e $PGDATA ]] || place "$PGDATA" $restored
            place $old "$PGDATA"
        fi
        rm -rf $restored
        ;;
    keep) # the new one serves
        [[ $(sql 'SELECT system_identifier FROM pg_control_system()' 2> /dev/null) == "$(system "$PGDATA")" ]] \
            || fail 'no database runs on the new data, so the old is not deleted: `make up` first'
        [[ ! -e $old ]] || place $old $deleted
        rm -rf $deleted
        ;;
    versions) # of the data, and of this image
        look
        echo "$(< "$PGDATA/PG_VERSION") ${PG_VERSION%%.*}"
        ;;
    proof)
        [[ -s $root/proven ]] || fail "no backup was ever proven: \`make verify-backup\` first"
        read -r when backup _ < $root/proven
        is_younger "$when" 86400 && is_younger "$backup" 172800 \
            || fail "the last proof is $(spoken "$(age "$when")") old: \`make backup verify-backup\` first"
        ;;
    upgrade) # from the server behind db's socket, which runs the old version
        make_room
        need=$(du --summarize --block-size=1 --exclude=pg_wal "$PGDATA" | cut -f1)
        enough_space $volume "$need"
        trap 'pg_ctl stop --silent --mode=immediate --pgdata=$restored > /dev/null 2>&1; rm -rf $restored' EXIT
        # As the image does it.
        eval "initdb --username=postgres --pwfile=/run/secrets/postgres-password \
            --pgdata=$restored $POSTGRES_INITDB_ARGS" > /dev/null
        echo 'host all all all scram-sha-256' >> $restored/pg_hba.conf
        # Whoever is in here may be any role.
        echo 'local all all trust' > /tmp/pg_hba.conf
        pg_ctl start --silent --wait --pgdata=$restored --log=$restored/recovery.log \
            --options="-c listen_addresses='' -c unix_socket_directories=$scratch_socket \
                -c hba_file=/tmp/pg_hba.conf -c fsync=off"
        before=$(count)
        pg_dumpall --globals-only | sed '/^CREATE ROLE postgres;$/d' \
            | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=$scratch_socket --dbname=postgres > /dev/null
        for database in $(databases); do
            bring "$database"
        done
        export PGHOST=$scratch_socket
        [[ $(count) == "$before" ]] || fail "the new database has other rows than the old: $(count)"
        check
        finish $restored
        sync --file-system $volume
        trap - EXIT
        ;;
    scratch)
        recover "$PGDATA" "${TO:-}"
        check
        finish "$PGDATA"
        exec docker-entrypoint.sh postgres -c synchronous_standby_names=
        ;;
esac
