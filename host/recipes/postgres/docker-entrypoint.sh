#!/usr/bin/env bash
# Creates the database cluster on first start, as the official image documents it:
# https://hub.docker.com/_/postgres ("Environment Variables", "Initialization scripts").
set -Eeuo pipefail
shopt -s nullglob

major=${PG_VERSION%%.*}
if ((major >= 18)); then
    : "${PGDATA:=/var/lib/postgresql/$major/docker}"
else
    : "${PGDATA:=/var/lib/postgresql/data}"
fi
export PGDATA

# from_file NAME DEFAULT: NAME may be given as itself or, for secrets, as a file in NAME_FILE.
from_file() {
    local file=${1}_FILE
    if [[ -n ${!1:-} && -n ${!file:-} ]]; then
        echo "Error: both $1 and $file are set, but they exclude each other" >&2
        exit 1
    fi
    if [[ -n ${!file:-} ]]; then
        export "$1=$(<"${!file}")"
    else
        export "$1=${!1:-$2}"
    fi
    unset "$file"
}

run_sql() {
    psql --no-psqlrc --no-password --quiet -v ON_ERROR_STOP=1 \
        --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"
}

run_init_script() {
    echo "$0: running $1"
    case $1 in
        *.sh) if [[ -x $1 ]]; then "$1"; else source "$1"; fi ;;
        *.sql) run_sql --file "$1" ;;
        *.sql.gz) gunzip --stdout "$1" | run_sql ;;
        *.sql.xz) xzcat "$1" | run_sql ;;
        *.sql.zst) zstd --decompress --stdout "$1" | run_sql ;;
        *) echo "$0: ignoring $1" ;;
    esac
}

create_cluster() {
    if [[ -z $POSTGRES_PASSWORD && ${POSTGRES_HOST_AUTH_METHOD:-} != trust ]]; then
        echo 'Error: POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must give a password' >&2
        exit 1
    fi
    eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(echo \"\$POSTGRES_PASSWORD\") $POSTGRES_INITDB_ARGS"
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"

    export PGPASSWORD=$POSTGRES_PASSWORD
    pg_ctl --wait --options="-c listen_addresses=''" start
    if [[ $POSTGRES_DB != postgres ]]; then
        echo 'CREATE DATABASE :"name"' | POSTGRES_DB=postgres run_sql -v name="$POSTGRES_DB"
    fi
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        run_init_script "$script"
    done
    pg_ctl --wait --mode=fast stop
    unset PGPASSWORD
}

if [[ ${1:-} == -* ]]; then
    set -- postgres "$@"
fi
if [[ ${1:-} == postgres ]]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    if ((EUID == 0)); then
        chown -R postgres:postgres "$PGDATA" /var/run/postgresql
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        from_file POSTGRES_PASSWORD ''
        from_file POSTGRES_USER postgres
        from_file POSTGRES_DB "$POSTGRES_USER"
        from_file POSTGRES_INITDB_ARGS ''
        create_cluster
    fi
fi
exec "$@"
