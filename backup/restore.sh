#!/usr/bin/env bash
# restore.sh STEP: the steps of `make restore` and `make upgrade-db`, inside db's volume. The new
# database is made beside the old, and the two change places by renaming.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh
# shellcheck source=backup/recover.sh
source /berth/recover.sh

restored=/var/lib/postgresql/restored
old=/var/lib/postgresql/before-restore

case $1 in
    recover)
        trap 'pg_ctl stop --silent --mode=immediate --pgdata=$restored > /dev/null 2>&1; rm -rf $restored' EXIT
        recover $restored "${TO:-}"
        check
        # On a new machine they are new, and they may have changed since the moment.
        sql "ALTER ROLE postgres PASSWORD '$(< /run/secrets/postgres-password)'"
        sql "ALTER ROLE $DATABASE PASSWORD '$(< /run/secrets/database-password)'"
        finish $restored
        trap - EXIT
        ;;
    swap)
        if [[ -d $PGDATA ]]; then
            rm -rf $old
            mv "$PGDATA" $old
        fi
        mkdir -p "$(dirname "$PGDATA")"
        mv $restored "$PGDATA" || { mv $old "$PGDATA" && exit 1; }
        ;;
    back) # the new one does not serve
        if [[ -d $old ]]; then
            rm -rf "$PGDATA"
            mv $old "$PGDATA"
        fi
        ;;
    keep) # the new one serves
        rm -rf $old
        ;;
    versions) # of the data, and of this image
        echo "$(< "$PGDATA/PG_VERSION") ${PG_VERSION%%.*}"
        ;;
    proof)
        [[ -s $root/proven ]] || fail "no backup was ever proven: \`make verify-backup\` first"
        read -r when backup _ < $root/proven
        (($(age "$when") < 86400 && $(age "$backup") < 172800)) \
            || fail "the last proof is $(spoken "$(age "$when")") old: \`make backup verify-backup\` first"
        ;;
    upgrade) # from the server behind db's socket, which runs the old version
        trap 'pg_ctl stop --silent --mode=immediate --pgdata=$restored > /dev/null 2>&1; rm -rf $restored' EXIT
        rm -rf $restored
        # As the image does it.
        initdb --username=postgres --pwfile=/run/secrets/postgres-password --pgdata=$restored \
            --auth-local=peer --auth-host=scram-sha-256 > /dev/null
        echo 'host all all all scram-sha-256' >> $restored/pg_hba.conf
        pg_ctl start --silent --wait --pgdata=$restored --log=$restored/recovery.log \
            --options="-c listen_addresses='' -c unix_socket_directories=$scratch_socket -c fsync=off"
        pg_dumpall | sed '/^CREATE ROLE postgres;$/d' \
            | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=$scratch_socket --dbname=postgres > /dev/null
        before=$(count)
        export PGHOST=$scratch_socket
        [[ $(count) == "$before" ]] || fail "the new database has other rows than the old: $(count)"
        vacuumdb --all --analyze-only --quiet
        check
        finish $restored
        sync --file-system $restored
        trap - EXIT
        ;;
    scratch)
        recover "$PGDATA" "${TO:-}"
        check
        finish "$PGDATA"
        exec docker-entrypoint.sh postgres -c synchronous_standby_names=
        ;;
esac
