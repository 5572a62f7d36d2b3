#!/usr/bin/env bash
# db's entry point: no start begins an empty database on a volume that holds one, or goes on with
# half of one.
set -euo pipefail

before=/var/lib/postgresql/before-restore
made=$PGDATA.new
rm -rf "$made"
if [[ ! -s $PGDATA/PG_VERSION && -s $before/PG_VERSION ]]; then
    # `make restore` was killed while the new database took its place.
    mkdir -p "$(dirname "$PGDATA")"
    mv --no-target-directory $before "$PGDATA"
    echo 'the database from before a restore that did not end is back'
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    other=$(find /var/lib/postgresql -mindepth 2 -maxdepth 3 -name PG_VERSION -print -quit)
    case ${other%/PG_VERSION} in
        '')
            # As the image does it, but in its place only once it is whole.
            eval "initdb --username=postgres --pwfile=/run/secrets/postgres-password \
                --pgdata=$made $POSTGRES_INITDB_ARGS"
            echo 'host all all all scram-sha-256' >> "$made/pg_hba.conf"
            sync "$made/pg_hba.conf"
            rmdir "$PGDATA" 2> /dev/null || true
            mv --no-target-directory "$made" "$PGDATA"
            sync "$(dirname "$PGDATA")"
            ;;
        */restored)
            echo 'a restore into this empty volume did not end: `make restore` begins it again'
            exit 1
            ;;
        *)
            echo "this volume holds a database in ${other%/PG_VERSION}, and none in $PGDATA: move it there"
            exit 1
            ;;
    esac
elif [[ $(< "$PGDATA/PG_VERSION") != "${PG_VERSION%%.*}" ]]; then
    echo "the database is of PostgreSQL $(< "$PGDATA/PG_VERSION"), POSTGRES_IMAGE of ${PG_VERSION%%.*}: \`make upgrade-db\`"
    exit 1
fi
exec docker-entrypoint.sh "$@"
