#!/usr/bin/env bash
# The health check: says in one sentence how the backups are, and fails when that is not well.
set -euo pipefail
# shellcheck source=backup/lib.sh
source /berth/lib.sh

alarms=()
last_words() { tail -n 1 "$1" | cut -c 1-500; }

streaming=$(sql "SELECT count(*) FROM pg_stat_replication
    WHERE application_name = 'backup' AND state = 'streaming'" 2> /dev/null) || streaming=0
[[ $streaming == 1 ]] || alarms+=("the log is not being copied: $(cat /tmp/stream 2> /dev/null || true)")
[[ ! -s /tmp/clock ]] || alarms+=("$(< /tmp/clock), and nothing is forgotten meanwhile: is it right now? then \`docker compose restart backup\`")
[[ ! -s /tmp/base ]] || alarms+=("the last base backup failed: $(last_words /tmp/base)")
[[ ! -s $proofs/verify ]] || alarms+=("the last proof failed: $(last_words $proofs/verify | tr --delete '[:cntrl:]')")

if newest=$(backups 2> /dev/null | tail -n 1 | xargs -r basename) && [[ -n $newest ]]; then
    says="base backup $(spoken "$(age "$newest")") old, the log copied as it is written"
    (($(age "$newest") >= -slack)) || alarms+=("the newest base backup is of $newest, which is yet to come: is the clock right?")
    (($(age "$newest") <= EVERY_HOURS * 7200 + 3600)) || alarms+=("the newest base backup is $(spoken "$(age "$newest")") old")
else
    says='the first base backup is under way'
fi
if [[ -s $root/proven ]]; then
    read -r when _ found < $root/proven
    says+=", proven $(spoken "$(age "$when")") ago ($found)"
    (($(age "$when") <= PROVEN_HOURS * 3600)) || alarms+=("the last proven restore is $(spoken "$(age "$when")") old")
elif [[ -n $newest ]]; then
    says+=', not proven yet'
    (($(age "$newest") <= PROVEN_HOURS * 3600)) || alarms+=('no restore was ever proven')
fi
if ((${#alarms[@]})); then
    (IFS=';'; echo "${alarms[*]}")
    exit 1
fi
echo "$says"
