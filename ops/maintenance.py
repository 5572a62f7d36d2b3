"""`make maintenance ON=1`: answer 503 to all but ALLOW, until `OFF=1`; without either, say which.

A container does it: it survives what a container survives, and a deploy does not touch it.
"""

import ipaddress
import json
import os
import re
import stat
import sys
import time
from pathlib import Path

from host.commands import UserError, carried_out
from ops.closed import SERVICE, containers, says
from ops.docker import compose, docker, last_lines
from ops.https import Endpoint
from ops.stack import Container, Stack, State, ids, running

_PAGE = "/page.html"
# HAProxy holds the page and its headers in a buffer of 128 KiB.
_PAGE_BYTES = 120_000
_SECONDS = 15


def rules(stack: Stack, allowed: list[str]) -> tuple[str, str]:
    """Return which requests are kept out, as Traefik reads it: of single names, of wildcards."""
    # What watches the app goes on seeing it, `make up` and `make deploy` among others.
    version = stack.service("api")["environment"]["VERSION_PATH"]
    passes = [f"Path(`{path}`)" for path in ("/livez", "/readyz", version)]
    for address in allowed:
        passes.append(f"ClientIP(`{address}`)")
        # Traefik leaves this header to those of TRUSTED_PROXIES alone: its end is their own word.
        passes.append(f"HeaderRegexp(`X-Forwarded-For`, `(^|[ ,]){re.escape(address)}$`)")
    singles = [f"Host(`{name}`)" for name in stack.served if name[0] != "*"]
    below = [
        rf"HostRegexp(`(?i)^[^.]+{re.escape(name[1:])}\z`)"
        for name in stack.served
        if name[0] == "*"
    ]
    single, wildcard = (
        f"({' || '.join(hosts)}) && !({' || '.join(passes)})" if hosts else ""
        for hosts in (singles, below)
    )
    return single, wildcard


def addresses(given: str) -> list[str]:
    """Read ALLOW.

    Raises:
        UserError: It has something else than addresses.
    """
    try:
        return [str(ipaddress.ip_address(one)) for one in re.split(r"[\s,]+", given) if one]
    except ValueError as error:
        raise UserError(
            f"ALLOW={given}: addresses, with commas between several ({error})"
        ) from None


def check_page() -> None:
    """Refuse a page that could not be shown.

    Raises:
        UserError: The sentence names the variable and the way out.
    """
    found = json.loads(compose(f"--profile={SERVICE}", "config", "--format=json", SERVICE))
    mounts = found["services"][SERVICE]["volumes"]
    page = Path(next(one["source"] for one in mounts if one["target"] == _PAGE))
    name = f"MAINTENANCE_PAGE={page}"
    if not page.is_file():
        raise UserError(f"{name}: there is no such file")
    if not page.stat().st_mode & stat.S_IROTH:
        raise UserError(f"{name}: a user of its own has to read it: chmod 644")
    if page.stat().st_size > _PAGE_BYTES:
        raise UserError(f"{name}: {_PAGE_BYTES:,} bytes is the most; link to images elsewhere")


def turn_on(stack: Stack, allowed: list[str]) -> str:
    """Keep visitors out from now on; returns what to say.

    Raises:
        UserError: Nothing runs, or Traefik does not do it.
    """
    if not running(stack.containers("traefik")):
        raise UserError("the stack does not run: `make up`")
    check_page()
    before = containers(stack)
    # Compose would start one that somebody stopped, with what it was told then.
    if stopped := [one for one in stack.containers(SERVICE) if one.state is State.STOPPED]:
        remove(stopped)
    single, wildcard = rules(stack, allowed)
    # The next beside the last: in between, visitors would get in.
    compose(
        *(f"--profile={SERVICE}", "up", "--detach", "--no-deps", "--no-recreate"),
        *(f"--scale={SERVICE}={len(before) + 1}", SERVICE),
        environment={
            "MAINTENANCE_ID": f"{time.time_ns() // 10**6}",
            "MAINTENANCE_RULE": single,
            "MAINTENANCE_BELOW": wildcard,
        },
    )
    endpoint = Endpoint(stack.domain, *stack.published(443))
    deadline = time.monotonic() + _SECONDS
    while True:
        fresh = [one for one in containers(stack) if one.id not in ids(before)]
        is_up = any(one.state is State.HEALTHY for one in fresh)
        if is_up and endpoint.status("/") == 503:
            break
        if time.monotonic() > deadline:
            said = "".join(f": {last_lines(one.id, 1)}" for one in fresh)
            if fresh:
                remove(fresh)
            raise UserError(f"{endpoint.url} did not turn to 503{said}")
        time.sleep(0.1)
    if before:
        # It was 503 already: a moment for Traefik to learn of the new one.
        time.sleep(1)
        remove(before)
    others = f", but to {', '.join(allowed)}" if allowed else ""
    return f"{endpoint.url} answers 503{others}; `make maintenance OFF=1` ends it"


def remove(found: list[Container]) -> None:
    """Let visitors in again."""
    docker("container", "rm", "--force", "--volumes", *ids(found))


def maintain() -> None:
    """Do what ON, OFF and ALLOW say, and print what came of it."""
    stack = Stack.read()
    on, off, allow = (os.environ.get(name, "") for name in ("ON", "OFF", "ALLOW"))
    if on and off:
        raise UserError("ON and OFF are both given: one of them, please")
    if allow and not on:
        raise UserError(f"ALLOW={allow}: give ON=1 as well")
    found = containers(stack)
    if on:
        print(turn_on(stack, addresses(allow)))
    elif off:
        if found:
            remove(found)
        print("maintenance is off")
    else:
        print(says(found[0]) if found else "maintenance is off")


if __name__ == "__main__":
    sys.exit(carried_out(maintain))
