#!/usr/bin/env bash
# The app's role owns its database and nothing more: it is no superuser.
set -euo pipefail

psql --no-psqlrc --set ON_ERROR_STOP=1 --set password="$(< /run/secrets/database-password)" <<'SQL'
CREATE ROLE berth LOGIN PASSWORD :'password';
CREATE DATABASE berth OWNER berth;
REVOKE ALL ON DATABASE berth FROM PUBLIC;
SQL
