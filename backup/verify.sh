#!/usr/bin/env bash
# Proves the backups: every file is as it was, and the newest one with the log makes a database
# in which every row and index is whole. In the proof service, where whatever the database holds
# reaches nothing: no network, no live database, and the backups are there to be read only.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh
# shellcheck source=backup/recover.sh
source /berth/recover.sh

scratch=$proofs/scratch
export SHARED_BUFFERS=16MB PROVING=yes

clean() {
    pg_ctl stop --silent --mode=immediate --pgdata=$scratch > /dev/null 2>&1 || true
    rm -rf $scratch
}
trap clean EXIT
clean

newest=$(backups | tail -n 1)
[[ -n $newest ]] || fail 'there is no base backup yet'
while read -r one; do
    # Unless it was forgotten meanwhile.
    [[ $one == "$newest" ]] || pg_verifybackup --no-parse-wal --quiet "$one" || [[ ! -e $one ]] \
        || fail "the base backup ${one##*/} is damaged"
done < <(backups)
recover $scratch 9>&-
check
echo "$(now) ${newest##*/} $found" > $proofs/proven.new
mv $proofs/proven.new $proofs/proven
for ((tries = 0; tries < 100; tries++)); do
    ! cmp --silent $proofs/proven $root/proven || break
    sleep 0.1 # the backup service notes it
done
echo "proven: $found"
