"""The data: its schema, its database, its copies."""

import json
from pathlib import Path
from typing import Any

from ops import backups as services
from ops.docker import DockerError, docker
from ops.facts import Facts
from ops.finding import Finding, bad, good, warning
from ops.stack import SERVICE

_FULL = 0.8

_SIZE = "SELECT pg_database_size('berth')"
# By how many names the app may log in; by one, unless a password is being changed.
_NAMES = """SELECT to_json(count(*)) FROM pg_roles
    WHERE rolname IN ('berth', 'berth_clone') AND rolcanlogin"""
# Of other roles' sessions one that is no superuser is told the role alone.
_CONNECTIONS = """SELECT json_build_object(
    'used', (SELECT count(*) FROM pg_stat_activity
        WHERE coalesce(backend_type, 'client backend') = 'client backend'
            AND usesysid IS NOT NULL AND pid <> pg_backend_pid()),
    'most', current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int)"""
# Of one that is elsewhere.
_FROM_OUTSIDE = f"""SELECT json_build_object(
    'version', current_setting('server_version'),
    'size', pg_database_size(current_database()),
    'reads_only', current_setting('transaction_read_only')::bool,
    'connections', ({_CONNECTIONS}))"""
# What runs for long, and what holds its locks for long without running.
_QUERIES = """SELECT coalesce(json_agg(found), '[]') FROM (
    SELECT pid, state, usename AS role, extract(epoch FROM now() - since)::int AS seconds,
        left(regexp_replace(query, '[[:space:][:cntrl:]]+', ' ', 'g'), 120) AS query
    FROM (
        SELECT *, CASE state WHEN 'active' THEN query_start ELSE state_change END AS since
        FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'
            AND wait_event IS DISTINCT FROM 'advisory' -- its turn to migrate, or to start anew
    ) AS one
    WHERE now() - since > interval '10 s'
    ORDER BY since) AS found"""
# Whose order is another than the one in which its indexes were built.
_COLLATIONS = """SELECT coalesce(json_agg(name), '[]') FROM (
    SELECT 'database ' || datname AS name FROM pg_database
        WHERE datallowconn AND datcollversion <> pg_database_collation_actual_version(oid)
    UNION ALL
    SELECT 'collation ' || collname FROM pg_collation
        WHERE collversion <> pg_collation_actual_version(oid)) AS found"""
_IS_COUNTED = "SELECT to_json(count(*)) FROM pg_extension WHERE extname = 'pg_stat_statements'"
_COUNTED = """SELECT json_build_object(
    'query', left(regexp_replace(query, '[[:space:][:cntrl:]]+', ' ', 'g'), 80),
    'milliseconds', mean_exec_time, 'share', total_exec_time / sum(total_exec_time) OVER ())
    FROM pg_stat_statements ORDER BY total_exec_time DESC LIMIT 1"""


# As superuser: nothing here is of the app's database, or found where another role can make things.
_AS_SUPERUSER = 'psql --dbname=postgres "$@"'
# What the app's and the owner's roles could have made is read with the app's own rights.
_AS_APP = """
cd /run/secrets
user=$(readlink database-password)
PGPASSWORD=$(< "$user") psql --host=127.0.0.1 --username="$user" --dbname=berth "$@"
"""


def ask(facts: Facts, query: str) -> Any:  # noqa: ANN401
    """Return the JSON that superuser's query yields, None for NULL; elsewhere, the app's role's.

    Raises:
        DockerError: It fails, or no database runs.
    """
    if facts.stack.database_is_elsewhere:
        return _ask_from_replica(facts, query)["answer"]
    return _psql(facts, _AS_SUPERUSER, query, "-c search_path=pg_catalog")


def ask_as_app(facts: Facts, query: str) -> Any:  # noqa: ANN401
    """Return the JSON that a query of the app's role yields, None for NULL.

    Raises:
        DockerError: It fails, or no database runs.
    """
    return _psql(facts, _AS_APP, query)


def _ask_from_replica(facts: Facts, query: str) -> dict[str, Any]:
    """Return what the app's role is told, with `where` the database is and the `sslmode`."""
    found: dict[str, Any] = _in_a_replica(facts, "_berth.ask", query)
    return found


def _in_a_replica(facts: Facts, *program: str) -> Any:  # noqa: ANN401
    (replica, *_) = [one.id for one in facts.running(SERVICE)] or [""]
    if not replica:
        raise DockerError("no replica runs: `make up`")
    return json.loads(docker("exec", replica, "python", "-m", *program))


def _psql(facts: Facts, script: str, query: str, options: str = "") -> Any:  # noqa: ANN401
    (db, *_) = [one.id for one in facts.running("db")] or [""]
    if not db:
        raise DockerError("no database runs: `make up`")
    settings = f"--env=PGOPTIONS=-c statement_timeout=5s {options}"
    told = docker(
        *("exec", settings, db, "bash", "-c", script, "psql"),
        *("--no-psqlrc", "--tuples-only", "--no-align", f"--command={query}"),
    )
    try:
        return json.loads(told) if told else None
    except ValueError:
        raise DockerError(f"the database's answer is none: {told[:80]!r}") from None


def migrations(facts: Facts) -> Finding:
    """The database has what the app that serves needs, as a replica itself sees it."""
    found = _in_a_replica(facts, "_berth.schema")
    if not found:
        return good("the app has no migrations of alembic's")
    # What the schema's owner says need not be a revision.
    has, needs = (
        ascii(", ".join(found[name]) or "nothing")[1:-1][:80] for name in ("applied", "heads")
    )
    if found["behind"]:
        return bad(f"the schema is at {has}, the app needs {needs}", "`make deploy`")
    if found["unknown"]:
        return good(f"at {has}, which is newer than the {needs} of the app, or another app's")
    return good(f"at {has}, as the app needs")


def connections(facts: Facts) -> dict[str, int]:
    """Return how many connections the database has open, `used`, and how many it allows, `most`."""
    found: dict[str, int] = ask(facts, _CONNECTIONS)
    return found


def database(facts: Facts) -> Finding:
    """It has connections to spare, one password of the app's, and indexes in their order."""
    if facts.stack.database_is_elsewhere:
        return _elsewhere(facts)
    if sorted_otherwise := ask(facts, _COLLATIONS):
        way_out = (
            "`docker compose exec db reindexdb --all`, then in each database "
            "`ALTER DATABASE … REFRESH COLLATION VERSION`, or `ALTER COLLATION …`"
        )
        return bad(f"other libraries sort otherwise: {', '.join(sorted_otherwise)}", way_out)
    size = ask(facts, _SIZE)
    found = connections(facts)
    used, most = found["used"], found["most"]
    says = f"{_size(size)}; {used} of {most} connections in use"
    if used >= _FULL * most:
        way_out = "fewer replicas (each process holds up to four), or a larger max_connections"
        return (bad if used >= most else warning)(says, way_out)
    if ask(facts, _NAMES) > 1:
        says = "an old password of the app is valid still, as a change of it has not ended"
        return warning(says, "`make rotate-secrets`")
    return good(says)


def _elsewhere(facts: Facts) -> Finding:
    """It answers, is who it should be, takes writes, and has connections to spare."""
    try:
        told = _ask_from_replica(facts, _FROM_OUTSIDE)
    except DockerError as error:
        return bad(f"elsewhere: {error}", "its provider's pages, and DATABASE_URL_FILE")
    found, mode = told["answer"], str(told["sslmode"])
    used, most = found["connections"]["used"], found["connections"]["most"]
    says = (
        f"elsewhere, at {told['where']}: PostgreSQL {str(found['version']).split()[0]}, "
        f"{_size(found['size'])}; {used} of {most} connections in use"
    )
    if found["reads_only"]:
        way_out = "in DATABASE_URL_FILE, the host that takes writes, or all with commas and "
        way_out += "?target_session_attrs=read-write"
        return bad(f"{says}; it takes no writes", way_out)
    if mode != "verify-full":
        says += f"; sslmode={mode}, so that nobody knows who answers there"
        return warning(says, "leave it out of DATABASE_URL_FILE; DATABASE_CA is for its authority")
    if used >= _FULL * most:
        way_out = "fewer replicas (each process holds up to four), or a larger database"
        return (bad if used >= most else warning)(says, way_out)
    return good(f"{says}; TLS is verified")


def queries(facts: Facts) -> Finding:
    """None runs for long, or sits on its locks."""
    found = ask(facts, _QUERIES)
    if found:
        worst = found[0]
        says = (
            f"{len(found)} for over 10 s; the longest is {worst['state']} for "
            f"{worst['seconds']} s, of {worst['role']}: {worst['query']}"
        )
        end = f"SELECT pg_terminate_backend({worst['pid']})"
        way_out = f'`docker compose exec db psql --command="{end}"` ends it'
        if facts.stack.database_is_elsewhere:
            way_out = f'`make psql SQL="{end}"` ends it'
        return warning(says, way_out)
    says = "none runs for over 10 s"
    if facts.stack.database_is_elsewhere:
        return good(f"{says}, as far as the app's role may see")
    top = ask_as_app(facts, _COUNTED) if ask_as_app(facts, _IS_COUNTED) else None
    if top:
        share, milliseconds = float(top["share"]), float(top["milliseconds"])
        says += f"; {share:.0%} of all time goes to one of {milliseconds:.1f} ms: {top['query']}"
    return good(says)


def backups(facts: Facts) -> Finding:
    """The data is copied as it is written, and a restore of it was proven not long ago."""
    if facts.stack.database_is_elsewhere:
        return good("the database's are its provider's: see there that they are kept")
    wanted = services.wanted(facts.stack)
    if not wanted:
        says = "none are kept: this disk has the only copy of the data"
        return warning(says, "set BACKUP_DIR in .env, then `make up`")
    told = []
    for service in wanted:
        found = facts.running(service)
        if not found:
            return bad(f"{service} does not run", "`make up`")
        if is_hidden(facts, service, found[0].id):
            says = f"a disk was mounted at BACKUP_DIR after {service} started, out of its sight"
            return bad(says, f"`docker compose restart {service}`")
        try:
            # Asked now: what the engine knows may be half a minute old.
            command = facts.stack.service(service)["healthcheck"]["test"][1:]
            told.append(docker("exec", found[0].id, *command))
        except DockerError as error:
            return bad(str(error), f"`docker compose logs {service}`; it is tried again by itself")
    if not facts.running(services.PROOF):
        return bad(f"{services.PROOF} does not run", "`make up`")
    says = "; ".join(told)
    if wanted == [services.SERVICE] and is_on_dockers_disk(facts):
        way_out = "a BACKUP_DIR on another disk, or copies off the machine: RESTIC_REPOSITORY"
        return warning(f"{says}; on the database's own disk", way_out)
    return good(says)


def volumes(facts: Facts) -> Finding:
    """Those of the user's own are not on this machine alone."""
    found = services.volumes()
    if not found:
        return good("none of your own need a copy")
    copies = "offsite" in services.wanted(facts.stack)
    alone = [name for name, copied in found.items() if not (copies and copied)]
    if alone:
        says = f"on this machine alone: {', '.join(alone)}"
        return warning(
            says, "docs/backups.md says how to copy a volume off-site, or that it needs none"
        )
    return good(f"copied off-site with the backups: {', '.join(found)}")


def _kept(facts: Facts, service: str) -> dict[str, Any]:
    volumes = facts.stack.service(service)["volumes"]
    (kept,) = (one for one in volumes if one["target"] == "/backups")
    return dict(kept)


def is_hidden(facts: Facts, service: str, container: str) -> bool:
    """Whether a container has another folder than is at BACKUP_DIR now; as far as one may look."""
    kept = _kept(facts, service)
    try:
        Path(facts.engine["DockerRootDir"]).stat()  # or the engine is on another machine
        here = Path(kept["source"]).stat()
    except OSError:
        return False
    there = docker("exec", container, "stat", "-c", "%d %i", "/backups")
    return kept["type"] == "bind" and there != f"{here.st_dev} {here.st_ino}"


def is_on_dockers_disk(facts: Facts) -> bool:
    """Whether backups are lost together with the database; as far as may be looked at."""
    kept = _kept(facts, services.SERVICE)
    try:
        root = Path(facts.engine["DockerRootDir"]).stat()
        return kept["type"] == "volume" or Path(kept["source"]).stat().st_dev == root.st_dev
    except OSError:
        return False


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
