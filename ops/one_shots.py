"""The services that must have ended before any replica starts, run one at a time."""

import re
from collections.abc import Mapping

from host.commands import UserError
from ops.docker import DockerError, compose, tail
from ops.images import Image, Images
from ops.stack import MIGRATE, Stack
from ops.terminal import Terminal

# What `migrate` says where it can tell no newer version of this app from another app.
UNKNOWN = "or another app's, so nothing was migrated"
_MIGRATED = re.compile(r"Running upgrade \S* ?-> ([^\s,]+)")


def run(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run a service that ends by itself; return what it says.

    Raises:
        DockerError: It fails.
    """
    return compose(
        *("run", "--rm", "--no-deps", "--no-TTY", *arguments),
        environment=environment or {},
        merged=True,
    )


def check_database(stack: Stack, images: Images) -> None:
    """Log in to a database elsewhere, before anything is changed; the first start has no image yet.

    Raises:
        UserError: It lets nobody in; the sentence says why.
    """
    if not stack.database_is_elsewhere or not images.current():
        return
    by = by_present_url(stack)
    try:
        run(*by, "--env=LOG_LEVEL=ERROR", MIGRATE, "python", "-m", "_berth.postgres")
    except DockerError as error:
        raise UserError(tail(str(error), 1)) from None


def by_present_url(stack: Stack) -> list[str]:
    """Return the options of `run` with which `migrate` logs in by the files as they are now.

    Raises:
        UserError: `secrets` does not accept them; the sentence is its own.
    """
    if not stack.database_is_elsewhere:
        return []
    try:
        run("secrets", "try")
    except DockerError as error:
        raise UserError(str(error)) from None
    found = ["--env=DATABASE_URL_FILE=/run/app/tried/database-url"]
    if stack.service(MIGRATE)["environment"]["DATABASE_CA_FILE"]:
        found.append("--env=DATABASE_CA_FILE=/run/app/tried/database-ca.pem")
    return found


def check_settings() -> None:
    """Let `secrets` judge DOMAIN and its like, before Compose stops what they have changed.

    Replicas that start from now on find the present app.env.

    Raises:
        UserError: It does not accept them; the sentence is its own.
    """
    try:
        run("secrets")
    except DockerError as error:
        raise UserError(str(error)) from None


def migrate(
    stack: Stack, images: Images, image: Image, terminal: Terminal, database: str = "berth"
) -> list[str]:
    """Run the migrations of an image; return the revisions that were new.

    A signal does not end them: half a migration may need a hand to repair.
    """
    with terminal.step("migrating the database") as step:
        try:
            if not stack.database_is_elsewhere:
                own(database)  # which an update of Berth may have given another right
            name = images.reference(image.tag)
            settings = ("--env=LOG_LEVEL=INFO", f"--env=DATABASE_NAME={database}")
            said = run(*settings, MIGRATE, environment={"API_IMAGE": name})
        except DockerError as error:
            raise UserError(
                f"`migrate` failed, so nothing else has changed; its last words:\n  {error}"
            ) from None
        migrated = migrations_in(said)
        step.found = in_words(migrated)
        if UNKNOWN in said:
            step.found += ": the schema is of a newer version, or of another app"
    return migrated


def own(database: str) -> None:
    """Have a database, new or not, belong to the role that migrates, and the app reach its rows.

    Raises:
        DockerError: That fails.
    """
    run("roles", f"--set=database={database}")


def migrations_in(said: str) -> list[str]:
    """Return the revisions that alembic says it has upgraded to."""
    revisions: list[str] = _MIGRATED.findall(said)
    return revisions


def in_words(revisions: list[str]) -> str:
    """Count migrations and name them."""
    if not revisions:
        return "no migrations"
    noun = "migration" if len(revisions) == 1 else "migrations"
    return f"{len(revisions)} {noun} ({', '.join(revisions)})"
