"""Where a URL leads: as Berth reads it, and as it hands it on."""

import asyncio
from pathlib import Path

import asyncpg
import psycopg
import pytest
from sqlalchemy import make_url

from berth.database import DatabaseURLError, parse
from tests.berth.programs import Environment, run

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def test_tls_is_verified_unless_the_url_says_otherwise() -> None:
    """Against the provider's authority, or those that everybody trusts."""
    url = "postgresql://shop:secret@db.example.org/shop"
    assert parse(url).options == {"sslmode": "verify-full", "sslrootcert": AUTHORITIES}
    assert parse(url, "/ca.pem").options["sslrootcert"] == "/ca.pem"
    assert parse(f"{url}?sslmode=disable").options == {"sslmode": "disable"}
    assert parse(f"{url}?sslmode=require").options == {"sslmode": "require"}
    assert parse(f"{url}?sslrootcert=system").options["sslrootcert"] == AUTHORITIES


def test_every_driver_reads_the_same_from_the_variables() -> None:
    """Several hosts, their ports, and what is asked of a connection."""
    url = "postgres://shop:p%40ss@a.test:5433,[2001:db8::1]/my%20shop?target_session_attrs=primary"
    found = parse(url, "/ca.pem")
    assert found.variables() == {
        "PGHOST": "a.test,2001:db8::1",
        "PGPORT": "5433,5432",
        "PGDATABASE": "my shop",
        "PGUSER": "shop",
        "PGPASSWORD": "p@ss",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/ca.pem",
        "PGTARGETSESSIONATTRS": "primary",
    }
    assert "p@ss" not in repr(found)


def test_a_url_is_handed_on_as_libpq_reads_it() -> None:
    """With what was added to it; the options of others come along."""
    url = "postgres://shop:p%40ss@a.test:5433,b.test/shop?channel_binding=require&pgbouncer=true"
    handed = parse(url, "/ca.pem").url("postgresql")
    told = psycopg.conninfo.conninfo_to_dict(handed.replace("&pgbouncer=true", ""))
    assert told == {
        "user": "shop",
        "password": "p@ss",
        "host": "a.test,b.test",
        "port": "5433,5432",
        "dbname": "shop",
        "channel_binding": "require",
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
    }
    assert "pgbouncer=true" in handed


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+psycopg"])
def test_a_url_for_sqlalchemy_has_several_hosts_as_it_knows_them(scheme: str) -> None:
    """And nothing that a driver reads from the variables, for which each has another word."""
    url = "postgresql://shop:p%40ss@a.test:5433,b.test/shop?target_session_attrs=read-write"
    made = make_url(parse(url).url(scheme))
    assert (made.drivername, made.username, made.password) == (scheme, "shop", "p@ss")
    _, arguments = made.get_dialect()().create_connect_args(made)
    assert arguments["host"] in ("a.test,b.test", ["a.test", "b.test"])
    assert arguments["port"] in ("5433,5432", [5433, 5432])
    assert not {"sslmode", "target_session_attrs", "sslrootcert"} & set(arguments)
    made = make_url(parse("postgresql://shop:x@a.test/shop").url(scheme))
    assert (made.host, made.port, dict(made.query)) == ("a.test", 5432, {})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "give one line like postgresql://user:password@host:5432/name"),
        ("mysql://shop:secret@a.test/shop", "give one line like"),
        ("postgresql://shop:se/cret@a.test/shop", "give one line like"),
        ("postgresql://a.test/shop", "give one line like"),
        ("postgresql://shop:secret@a.test", "give one line like"),
        ("postgresql://shop:secret@a.test:port/shop", "a.test:port is no host and port"),
        ("postgresql://shop:secret@a.test:70000/shop", "a.test:70000 is no host and port"),
        ("postgresql://shop:secret@a.test/shop?sslmode=on", "sslmode=on: give one of disable,"),
        ("postgresql://shop:secret@a.test/shop?sslrootcert=/ca.pem", "sslrootcert names a file"),
    ],
)
def test_what_cannot_be_a_url_is_refused(url: str, says: str) -> None:
    """By a sentence that has nothing of the password."""
    with pytest.raises(DatabaseURLError, match=r"^DATABASE_URL_FILE: ") as refusal:
        parse(url)
    assert says in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "cret@" not in str(refusal.value)


def test_programs_end_with_the_sentence(migrated: Environment, tmp_path: Path) -> None:
    """Where the file is none of a URL."""
    file = tmp_path / "url"
    file.write_text("postgresql://berth@/")
    done = run(migrated | {"DATABASE_URL_FILE": str(file)}, "berth.migrate")
    assert done.returncode == 1
    assert done.stdout.startswith("DATABASE_URL_FILE: give one line like postgresql://user:")
    assert done.stdout.count("\n") == 1


def test_asyncpg_takes_the_arguments() -> None:
    """Nobody listens at either host."""
    arguments = parse("postgresql://berth:x@127.0.0.1:1,127.0.0.1:2/x?sslmode=prefer").arguments()
    with pytest.raises(OSError, match=r"."):
        asyncio.run(asyncpg.connect(**arguments, timeout=2))
