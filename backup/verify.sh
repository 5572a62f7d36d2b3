#!/usr/bin/env bash
# Proves the backups: every file is as it was, and the newest one with the log makes a database
# in which every row and index is whole.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh
# shellcheck source=backup/recover.sh
source /berth/recover.sh

# Nothing is forgotten meanwhile, and there is one proof at a time.
exec 9> /tmp/lock
flock 9
scratch=$root/scratch
export SHARED_BUFFERS=32MB PROVING=yes

clean() {
    pg_ctl stop --silent --mode=immediate --pgdata=$scratch > /dev/null 2>&1 || true
    rm -rf $scratch
}
trap clean EXIT
clean

newest=$(backups | tail -n 1)
[[ -n $newest ]] || fail 'there is no base backup yet'
while read -r one; do
    [[ $one == "$newest" ]] || pg_verifybackup --no-parse-wal --quiet "$one" \
        || fail "the base backup ${one##*/} is damaged"
done < <(backups)
recover $scratch 9>&-
check
echo "$(now) ${newest##*/} $found" > $root/proven.new
mv $root/proven.new $root/proven
echo "proven: $found"
