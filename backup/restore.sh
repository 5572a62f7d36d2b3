#!/usr/bin/env bash
# restore.sh recover|swap|keep|back|scratch: the steps of `make restore`, inside db's volume. The new
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
        mv $restored "$PGDATA"
        ;;
    back) # the new one does not serve
        rm -rf $restored
        if [[ -d $old ]]; then
            rm -rf "$PGDATA"
            mv $old "$PGDATA"
        fi
        ;;
    keep) # the new one serves
        rm -rf $old
        ;;
    scratch)
        recover "$PGDATA" "${TO:-}"
        check
        finish "$PGDATA"
        exec docker-entrypoint.sh postgres -c synchronous_standby_names=
        ;;
esac
