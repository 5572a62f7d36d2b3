#!/usr/bin/env bash
# A member of etcd: three that begin together, or one that goes on with what its volume holds. One
# that has lost its volume is turned away by the others until somebody has it take its place anew.
set -euo pipefail
# What was restored begins anew.
exec etcd --name="$NAME" --data-dir="/var/lib/etcd/data$RESTORE" \
    --listen-peer-urls=http://0.0.0.0:2380 --initial-advertise-peer-urls="http://$NAME:2380" \
    --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls="http://$NAME:2379" \
    --initial-cluster=etcd1=http://etcd1:2380,etcd2=http://etcd2:2380,etcd3=http://etcd3:2380 \
    --initial-cluster-token=berth --auto-compaction-retention=1h --logger=zap --log-level=warn
