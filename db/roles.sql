-- The roles of the database, and who owns what. Runs as superuser before every migration; whatever
-- it finds (a fresh cluster, one whose first start was killed, one of the time when the app's role
-- owned everything, one that was restored), it leaves as it says here.
--
--   postgres     superuser, reached by the socket alone
--   berth_owner  owns the database and what migrations make; only `migrate` has its password
--   berth        the app's: reads and writes rows, owns nothing and makes nothing
--   berth_clone  another name to log in as `berth`; while a password changes, both are valid
--   metrics      the exporter's: sees statistics, and no row
--
-- Superuser evaluates nothing here that another role could have made: names are found in
-- pg_catalog alone (PGOPTIONS in compose.yaml, which no setting of a database or role overrides).

-- `make import` names another database, which takes this one's place once it is whole.
\if :{?database}
\else
\set database berth
\endif

-- Passwords show neither in a process list, nor in the log, nor in statistics.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET track_activities = off;
SET pg_stat_statements.track = 'none';
SET client_min_messages = warning;
-- `make rotate-secrets` makes a file for the name that is not in use, and takes the old one away.
\set app `cat /run/secrets/berth.next 2> /dev/null || cat /run/secrets/berth 2> /dev/null`
\set clone `cat /run/secrets/berth_clone.next 2> /dev/null || cat /run/secrets/berth_clone 2> /dev/null`
\set owner `cat /run/owner-secrets/database-password`
\set metrics `cat /run/metrics-secrets/postgres-password`
\set postgres `cat /run/secrets/postgres-password`

BEGIN;
-- One of these programs at a time; who only logs in need not wait.
LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE;
SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY['berth_owner', 'berth', 'berth_clone', 'metrics']) AS role
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) \gexec

-- A role may change its own password and settings: what it did to itself ends here.
SELECT format('ALTER ROLE %I %s RESET ALL', rolname, 'IN DATABASE ' || quote_ident(datname))
FROM pg_db_role_setting
JOIN pg_roles ON pg_roles.oid = setrole
LEFT JOIN pg_database ON pg_database.oid = setdatabase
WHERE rolname IN ('berth_owner', 'berth', 'berth_clone', 'metrics') \gexec
ALTER ROLE postgres PASSWORD :'postgres';
ALTER ROLE berth_owner LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    PASSWORD :'owner';
ALTER ROLE berth INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE berth_clone INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
GRANT berth TO berth_clone;
-- Whoever asks who the app is, and what it makes, finds one role.
ALTER ROLE berth_clone SET role = 'berth';
SELECT CASE password
    WHEN '' THEN format('ALTER ROLE %I NOLOGIN PASSWORD NULL', role)
    ELSE format('ALTER ROLE %I LOGIN PASSWORD %L', role, password) END
FROM (VALUES ('berth', :'app'), ('berth_clone', :'clone')) AS name (role, password) \gexec
ALTER ROLE metrics LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT 3 PASSWORD :'metrics';
ALTER ROLE metrics SET statement_timeout = '5s';
ALTER ROLE metrics SET search_path = pg_catalog;
GRANT pg_monitor TO metrics;
COMMIT;
-- Sessions outlive a password.
DO $$
BEGIN
    PERFORM pg_terminate_backend(pid)
    FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid
    WHERE rolname IN ('berth', 'berth_clone') AND NOT rolcanlogin;
END
$$;

SELECT format('CREATE DATABASE %I OWNER berth_owner TEMPLATE template0', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
-- What an owner that is none any more has set for everybody who connects.
SELECT format('ALTER DATABASE %I RESET ALL', datname)
FROM pg_database WHERE datname = :'database' AND datdba <> 'berth_owner'::regrole \gexec
REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;

\connect :database
SET client_min_messages = warning;
BEGIN;
LOCK TABLE pg_authid IN SHARE ROW EXCLUSIVE MODE;
-- In one piece, so that the app is never without its rights. Each table is locked for a moment:
-- a try that has to wait gives way, so that requests do not queue up behind it.
SET lock_timeout = '500ms';
DO $$
DECLARE
    began CONSTANT timestamptz := clock_timestamp();
    statements text[];
    one text;
BEGIN
    LOOP
        BEGIN
            SELECT array_agg(statement) INTO statements FROM (
                SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO berth',
                    oid::regclass) AS statement
                FROM pg_class
                WHERE relowner = 'berth'::regrole AND relkind IN ('r', 'p', 'v', 'm', 'f')
                UNION ALL
                SELECT format('GRANT SELECT, UPDATE, USAGE ON SEQUENCE %s TO berth', oid::regclass)
                FROM pg_class WHERE relowner = 'berth'::regrole AND relkind = 'S'
                UNION ALL
                SELECT format('GRANT USAGE ON SCHEMA %I TO berth', nspname)
                FROM pg_namespace WHERE nspowner = 'berth'::regrole
                UNION ALL
                SELECT format('GRANT SELECT, UPDATE ON LARGE OBJECT %s TO berth', oid)
                FROM pg_largeobject_metadata
                WHERE lomowner IN ('berth'::regrole, 'berth_clone'::regrole)
                UNION ALL
                SELECT format('GRANT EXECUTE ON ROUTINE %s TO berth', oid::regprocedure)
                FROM pg_proc WHERE proowner = 'berth'::regrole
                UNION ALL
                -- What ran with the rights of `berth` does not get those of the owner.
                SELECT format('ALTER ROUTINE %s SECURITY INVOKER', oid::regprocedure)
                FROM pg_proc WHERE proowner = 'berth'::regrole AND prosecdef
            ) AS found;
            REASSIGN OWNED BY berth, berth_clone TO berth_owner;
            FOREACH one IN ARRAY coalesce(statements, '{}') LOOP
                EXECUTE one;
            END LOOP;
            EXECUTE format('ALTER DATABASE %I OWNER TO berth_owner', current_database());
            EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, berth CASCADE', current_database());
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO berth, metrics', current_database());
            ALTER SCHEMA public OWNER TO pg_database_owner;
            REVOKE CREATE ON SCHEMA public FROM PUBLIC, berth CASCADE;
            GRANT USAGE ON SCHEMA public TO berth;
            ALTER DEFAULT PRIVILEGES FOR ROLE berth_owner
                GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO berth;
            ALTER DEFAULT PRIVILEGES FOR ROLE berth_owner
                GRANT SELECT, UPDATE, USAGE ON SEQUENCES TO berth;
            ALTER DEFAULT PRIVILEGES FOR ROLE berth_owner GRANT EXECUTE ON ROUTINES TO berth;
            ALTER DEFAULT PRIVILEGES FOR ROLE berth_owner GRANT USAGE ON SCHEMAS TO berth;
            RETURN;
        EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
            -- Whoever of its sessions was in a transaction all the while serves no request.
            IF clock_timestamp() > began + interval '10 s' THEN
                PERFORM pg_stat_clear_snapshot();
                PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE usename IN ('berth', 'berth_clone') AND xact_start < began;
            END IF;
            PERFORM pg_sleep(0.5);
        END;
    END LOOP;
END
$$;
COMMIT;
