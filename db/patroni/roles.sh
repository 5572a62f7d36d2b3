#!/usr/bin/env bash
# Who may do what in a new database, or one that was restored: as on one machine, and two that copy
# it and bring an old primary back.
set -euo pipefail
export PGHOST=/var/run/postgresql PGUSER=postgres
export PGOPTIONS='-c search_path=pg_catalog -c role=none -c standard_conforming_strings=on -c default_transaction_read_only=off -c statement_timeout=0 -c synchronous_commit=local'
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres --file=/berth/roles.sql
# Patroni gives them what else they need.
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname=postgres << 'SQL'
SELECT format('CREATE ROLE %I', role) FROM unnest(ARRAY['replicator', 'rewinder']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec
GRANT CONNECT ON DATABASE postgres TO replicator, rewinder;
GRANT pg_monitor TO replicator;
SQL
