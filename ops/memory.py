"""Whether the memory limits of all services fit this machine together, and which would."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from host.commands import UserError
from ops import dotenv
from ops.docker import docker
from ops.stack import SERVICE, Stack

MIB = 1 << 20

# The kernel, the engine, sshd and a shell: what a small Debian server needs beside containers.
HOST_BYTES = 256 * MIB

VARIABLES = {
    "api": "API_MEMORY",
    "db": "DB_MEMORY",
    "traefik": "TRAEFIK_MEMORY",
    "proof": "BACKUP_MEMORY",
    "offsite": "OFFSITE_MEMORY",
    "prometheus": "METRICS_MEMORY",
}
_BUFFERS = "DB_SHARED_BUFFERS"
_HEAP = "TRAEFIK_HEAP"
# What Traefik needs beside its heap: stacks, and buffers that the kernel counts as its memory.
_BESIDE_HEAP = 48 * MIB
# With less, a service does not outlive a load. What is usual stands in compose.yaml.
LEAST = {
    "api": 96 * MIB,
    "db": 144 * MIB,
    "traefik": 128 * MIB,
    "proof": 64 * MIB,
    "offsite": 96 * MIB,
    "prometheus": 128 * MIB,
}
_STEP = 8 * MIB


@dataclass(frozen=True)
class Budget:
    """The arithmetic.

    Attributes:
        machine: Bytes of memory of the machine that the engine runs on.
        replica: The limit of one replica, in bytes.
        others: The limits of the other services that stay up, in bytes, by name.
    """

    machine: int
    replica: int
    others: dict[str, int]

    @classmethod
    def read(cls, stack: Stack, machine: int = 0) -> "Budget":
        """Read the limits from Compose's configuration, and the memory from the engine or here."""
        limits = {
            name: int(limit(service)) * int(service.get("deploy", {}).get("replicas", 1))
            for name, service in stack.configuration["services"].items()
            if name not in {SERVICE, *stack.one_shots}
        }
        return cls(
            machine=machine or int(docker("info", "--format={{.MemTotal}}")),
            replica=int(limit(stack.service(SERVICE))),
            others={name: size for name, size in limits.items() if size},
        )

    def with_others(self, counts: Mapping[str, int], stack: Stack) -> "Budget":
        """Return the same with so many containers of these services."""
        sizes = {name: int(limit(stack.service(name))) * count for name, count in counts.items()}
        return replace(self, others=self.others | {name: x for name, x in sizes.items() if x})

    @property
    def largest(self) -> int:
        """The largest number of replicas that fits."""
        room = self.machine - HOST_BYTES - sum(self.others.values())
        return max(0, room // self.replica) if self.replica else 2**31

    def total(self, replicas: int) -> int:
        """What all of them may take together, in bytes."""
        return replicas * self.replica + sum(self.others.values())

    def fitting(self, replicas: int, free: Collection[str]) -> dict[str, int]:
        """Return limits with which the stack fits this machine, and a deploy's replica besides.

        Each service gets its least, and all get the same share of what they usually have above; a
        quarter of what there is above is left, for another replica or whatever else comes.

        Args:
            replicas: How many shall serve.
            free: The services whose limits nobody has set.

        Returns:
            The limits, by service; none where the usual ones fit, or not even the least do.
        """
        counts = dict.fromkeys(self.others, 1) | {SERVICE: replicas + 1}
        usual = self.others | {SERVICE: self.replica}
        free = [name for name in LEAST if name in usual and name in free]
        fixed = sum(counts[name] * size for name, size in usual.items() if name not in free)
        least = sum(counts[name] * min(LEAST[name], usual[name]) for name in free)
        above = sum(counts[name] * max(0, usual[name] - LEAST[name]) for name in free)
        room = self.machine - HOST_BYTES - fixed - least
        if room >= above or room < 0:
            return {}
        return {
            name: LEAST[name]
            + (usual[name] - LEAST[name]) * room * 3 // 4 // above // _STEP * _STEP
            for name in free
            if usual[name] > LEAST[name]
        }

    def check(self, replicas: int, *, extra: int = 0) -> None:
        """Refuse a number of replicas that does not fit.

        Args:
            replicas: How many shall serve.
            extra: How many more there are for a while, as in a deploy.

        Raises:
            UserError: They do not fit, and FORCE is not set; the sentence has the arithmetic.
        """
        if replicas + extra <= self.largest or os.environ.get("FORCE"):
            return
        terms = [f"{replicas + extra} times {_mib(self.replica)} of api"]
        terms += [f"{_mib(size)} of {name}" for name, size in self.others.items()]
        during = f" during a deploy with SURGE={extra}" if extra else ""
        fits = self.largest - extra
        raise UserError(
            f"{replicas} replicas do not fit this machine's memory{during}: {', '.join(terms)} "
            f"make {_mib(self.total(replicas + extra))}, "
            f"and of {_mib(self.machine)} the host needs {_mib(HOST_BYTES)}. "
            + (f"The most that fits is {fits}: " if fits > 0 else "Not even one fits: ")
            + "change API_REPLICAS or API_MEMORY in .env, or go on regardless with FORCE=1"
        )


def fitting(stack: Stack, replicas: int, *, machine: int = 0) -> dict[str, str]:
    """Return the lines of `.env` with which a stack fits a machine; none where it does so far.

    What somebody has set stays.

    Args:
        stack: What is to fit.
        replicas: How many shall serve.
        machine: The bytes of its memory; left out, it is that of the engine here.
    """
    given = dotenv.given([*VARIABLES.values(), _BUFFERS, _HEAP])
    free = [name for name, variable in VARIABLES.items() if variable not in given]
    found = settings(Budget.read(stack, machine).fitting(replicas, free))
    return {name: value for name, value in found.items() if name not in given}


def settings(limits: Mapping[str, int]) -> dict[str, str]:
    """Return the lines of `.env` that set limits, and what has to go with them."""
    found = {VARIABLES[name]: f"{size // MIB}m" for name, size in limits.items()}
    if "db" in limits:
        # A quarter is usual; all of what it usually has would fill a small limit.
        found[_BUFFERS] = f"{limits['db'] // MIB // 4}MB"
    if "traefik" in limits:
        # It would let garbage double its heap before it collects any.
        found[_HEAP] = f"{(limits['traefik'] - _BESIDE_HEAP) // MIB}MiB"
    return found


def limit(service: dict[str, Any], of: str = "memory") -> float:
    """Return what a service's configuration allows each container: bytes, or `cpus`; 0 is all."""
    return float(service.get("deploy", {}).get("resources", {}).get("limits", {}).get(of, 0))


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
