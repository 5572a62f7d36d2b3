#!/usr/bin/env bash
# The proof service: proves each base backup, once there is one; and an hour later what failed.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

is_proven() { [[ $(cut -d' ' -f2 "$1" 2> /dev/null) == "$newest" ]]; }

trap 'exit 0' TERM INT
while sleep 2; do
    newest=$(backups 2> /dev/null | tail -n 1) || continue
    newest=${newest##*/}
    [[ -n $newest ]] || continue
    if [[ -s $proofs/verify ]]; then
        [[ -n $(find $proofs/verify -mmin +60) ]] || continue
    elif is_proven $proofs/proven || is_proven $root/proven; then
        continue
    fi
    bash /berth/attempt.sh verify &
    wait || true
done
