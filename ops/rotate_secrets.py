"""`make rotate-secrets`: give the database's roles new passwords without losing a request.

The app logs in by two names in turn. The one that is not in use gets a password, replicas that use
it take over, and the other is closed. In between both are valid, so an app that keeps what it read
at its start goes on, and one that starts anew gets in. Killed half-way, nothing is broken and the
next run finishes it.
"""

import sys
import time

from host.commands import UserError
from ops import lock, one_shots, program
from ops.docker import DockerError, docker
from ops.images import Image, Images
from ops.rollout import Rollout
from ops.service import Service
from ops.stack import Container, Stack, State, running
from ops.terminal import StopRequested, Terminal

_NAMES = {"berth", "berth_clone"}
_LOG_IN = """
cd /run/secrets
for file in *.next; do
    [[ ! -e $file ]] || PGPASSWORD=$(< "$file") psql --no-psqlrc --quiet --host=127.0.0.1 \
        --username="${file%.next}" --dbname=berth --command='SELECT 1' || exit
done
"""
_BOTH = "until `make rotate-secrets` gets to its end, the old password is valid too"


def rotate(terminal: Terminal) -> None:
    """Open one name, bring the replicas over to it, then close the other."""
    began = time.monotonic()
    stack = Stack.read()
    stack.require_own_database(
        "give it a new password there, put that into the file, then `make up`; the old one must be "
        "valid until that ends"
    )
    with lock.held(stack, "change of the passwords") as held:
        databases = [one for one in stack.containers("db") if one.state is State.HEALTHY]
        if not databases:
            raise UserError("the database does not run: `make up` first")
        resumes = _is_under_way(databases[0])
        images = Images(stack)
        service = None
        if running(stack.replicas()):
            service = Service.find(stack, images, held, resumes=resumes)
            check_berth(service.image)
            rollout = Rollout(stack, images, terminal, service.replicas)
            rollout.check_memory()
        with terminal.step("making new passwords"):
            one_shots.run("secrets", "prepare")
        with terminal.step("teaching them to the database"):
            one_shots.run("roles")
            docker("exec", databases[0].id, "bash", "-c", _LOG_IN)
            # It reads its own when it starts.
            for exporter in running(stack.containers("postgres-exporter")):
                docker("restart", exporter.id)
        one_shots.run("secrets", "switch")
        if service:
            try:
                rollout.anew(service.image)
            except UserError as error:
                raise UserError(f"{error}\n{_BOTH}") from None
            except StopRequested:
                terminal.say(_BOTH)
                raise
        with terminal.step("closing the old one"):
            one_shots.run("secrets", "retire")
            one_shots.run("roles")
    what = "a change that was broken off is finished" if resumes else "the passwords are new"
    terminal.say(
        f"{what}, the app's old one and its sessions have ended; "
        f"{time.monotonic() - began:.1f} s in all"
    )


def _is_under_way(database: Container) -> bool:
    return set(docker("exec", database.id, "ls", "/run/secrets").split()) >= _NAMES


def check_berth(image: Image) -> None:
    """Refuse an image whose replicas could not log in by another name.

    Raises:
        UserError: It is one.
    """
    knows = ("--entrypoint=python", image.id, "-c", "from _berth.postgres import login")
    try:
        docker("run", "--rm", "--network=none", *knows)
    except DockerError:
        raise UserError(
            f"{image.name} was built by an older Berth, and logs in by one name alone: "
            "`make deploy` first"
        ) from None


if __name__ == "__main__":
    sys.exit(program.run(rotate, "`make rotate-secrets` finishes what is left"))
