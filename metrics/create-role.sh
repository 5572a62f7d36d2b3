#!/usr/bin/env bash
# The exporter's role sees statistics and settings, and no row of anybody's.
set -euo pipefail

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --host=/var/run/postgresql --dbname=postgres <<'SQL'
SET client_min_messages = warning;
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
\set password `cat /run/metrics-secrets/postgres-password`
SELECT 'CREATE ROLE metrics' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'metrics') \gexec
ALTER ROLE metrics LOGIN CONNECTION LIMIT 3 PASSWORD :'password';
ALTER ROLE metrics SET statement_timeout = '5s';
GRANT pg_monitor TO metrics;
GRANT CONNECT ON DATABASE berth TO metrics;
SQL
