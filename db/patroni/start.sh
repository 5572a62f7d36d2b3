#!/usr/bin/env bash
# A member of the database: Patroni over this machine's volume.
set -euo pipefail

# A machine that was cut off is told at once to end its old container and to start another one:
# two servers in one folder would ruin it.
exec 9> /var/lib/postgresql/lock
flock 9
number=${NAME#postgres}
secret() { cat "/run/secrets/$1"; }

umask 077
{
    cat << YAML
scope: berth
name: $NAME
restapi: {listen: "0.0.0.0:8008", connect_address: "$NAME:8008"}
etcd3: {hosts: "etcd1:2379,etcd2:2379,etcd3:2379"}
postgresql:
  listen: "*:5432"
  connect_address: "$NAME:5432"
  data_dir: $PGDATA
  pgpass: /tmp/pgpass
  use_unix_socket: true
  remove_data_directory_on_rewind_failure: true
  basebackup: [{checkpoint: fast}]
  authentication:
    superuser: {username: postgres, password: "$(secret postgres-password)"}
    replication: {username: replicator, password: "$(secret replication-password)"}
    rewind: {username: rewinder, password: "$(secret replication-password)"}
  # Inside the container the superuser needs no password and nobody else gets in.
  pg_hba:
    - local all all peer
    - host all postgres all reject
    - host replication replicator all scram-sha-256
    - host all all all scram-sha-256
  parameters:
    unix_socket_directories: /var/run/postgresql
    shared_buffers: $SHARED_BUFFERS
    jit: "off"
    summarize_wal: "on"
    max_slot_wal_keep_size: $BACKUP_LAG
    # A standby that is gone is seen to be gone, and one that looks for the primary finds it soon.
    wal_sender_timeout: 6s
    wal_receiver_timeout: 6s
    wal_retrieve_retry_interval: 1s
  callbacks:
    on_start: bash /berth/role.sh
    on_role_change: bash /berth/role.sh
YAML
    # What is restored begins where the backups are.
    [[ -n $RESTORE && $NAME != postgres3 ]] || cat << 'YAML'
bootstrap:
  dcs:
    # What Patroni allows: a primary that is gone is replaced after `ttl`, and not by mistake while
    # etcd elects a leader of its own: loop_wait + 2 * retry_timeout <= ttl.
    ttl: 20
    loop_wait: 5
    retry_timeout: 5
    synchronous_mode: true
    synchronous_mode_strict: true
    # The backup service makes and drops it: see backup/lib.sh.
    ignore_slots: [{name: backup, type: physical}]
    postgresql: {use_pg_rewind: true, use_slots: true}
  initdb:
    - auth-local: peer
    - auth-host: scram-sha-256
    - locale-provider: builtin
    - builtin-locale: C.UTF-8
    - locale: C.UTF-8
  post_bootstrap: bash /berth/roles.sh
YAML
    [[ -z $RESTORE || $NAME != postgres3 ]] || cat << 'YAML'
  method: backup
  backup: {command: bash /berth/bootstrap.sh, no_params: true}
YAML
} > /tmp/patroni.yaml

# When etcd's leader is lost, etcd gives every lease its whole time again: the primary's would end
# after twice that. So its leader is on another machine than the primary.
keep_apart() {
    local own=http://etcd$number:2379 id
    export ETCDCTL_API=3 ETCDCTL_DIAL_TIMEOUT=2s ETCDCTL_COMMAND_TIMEOUT=5s
    while sleep 5; do
        [[ $(psql -qAtXc 'SELECT pg_is_in_recovery()' 2> /dev/null) == f ]] || continue
        etcdctl --endpoints="$own" endpoint status --write-out=fields 2> /dev/null \
            | awk '$1 == "\"MemberID\"" { own = $3 } $1 == "\"Leader\"" { leader = $3 } END { exit own != leader }' \
            || continue
        for id in $(etcdctl --endpoints="$own" member list | grep -v "etcd$number:2380" | cut -d, -f1); do
            ! etcdctl --endpoints="$own" move-leader "$id" || break
        done
    done
}
keep_apart &
exec patroni /tmp/patroni.yaml
