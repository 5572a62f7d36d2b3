"""What to change, from how the machine was used: the rules of `make advise`, and nothing else.

The deployment guide's aim is to use 50 to 90 % of what one pays for.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ops.memory import LEAST, MIB, VARIABLES, Budget

# Of all processors, in the busiest five minutes: from here on, growth needs more of them.
BUSY = 0.8
# Where to come to: in the middle of 50 to 90 %.
AIM = 0.7
IDLE = 0.25
# Of a limit: memory that is nearly reached, and what a limit leaves above the largest use.
NEAR = 0.85
HEADROOM = 1.5
_STEP = 32 * MIB
SLOW_SECONDS = 1.0
# Two replicas are the fewest that outlive one of them.
FEWEST = 2
HISTORY_SECONDS = 600
# What may be taken away is judged over longer than what is missing.
LONG_SECONDS = 1800

_CPUS = {"api": "API_CPUS", "db": "DB_CPUS", "traefik": "TRAEFIK_CPUS"}


@dataclass(frozen=True)
class Service:
    """What the containers of a service have used.

    Attributes:
        cores: Processors that all of them together kept busy, in the busiest five minutes.
        memory: The most that one of them had, in bytes; a look counts files of theirs, which only
            a database or its like has many of.
        memory_limit: What each may have, in bytes; 0 is no limit.
        core_limit: Processors that each may keep busy; 0 is no limit.
        killed: How often one ran out of memory; in a look, how many did lately.
        restarts: How often one came back, for whatever reason; in a look, how many did lately.
    """

    cores: float = 0
    memory: int = 0
    memory_limit: int = 0
    core_limit: float = 0
    killed: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class Usage:
    """How the machine was used.

    Attributes:
        seconds: How long it was watched.
        is_history: Whether that was Prometheus, rather than a short look.
        cores: The machine's processors.
        busy: How many of them were busy, whoever kept them so, in the busiest five minutes.
        replicas: How many serve.
        workers: Processes in each of them.
        budget: The arithmetic of memory.
        services: What each has used.
        requests: Answered per second in the busiest five minutes; None if nobody counted.
        p99: Seconds within which 99 of 100 were answered, by Traefik or in a look, for which nobody
            has counted there, by the replicas; None if nobody counted.
        connections: The most that the database had open at once.
        most_connections: How many it allows.
    """

    seconds: float
    is_history: bool
    cores: int
    busy: float
    replicas: int
    workers: int
    budget: Budget
    services: Mapping[str, Service]
    requests: float | None = None
    p99: float | None = None
    connections: int = 0
    most_connections: int = 0

    @property
    def api(self) -> Service:
        """What the replicas have used."""
        return self.services["api"]

    @property
    def share(self) -> float:
        """How busy the processors were, from 0 to 1."""
        return self.busy / self.cores

    @property
    def ours(self) -> float:
        """How many processors this stack kept busy."""
        return sum(one.cores for one in self.services.values())

    @property
    def per_process(self) -> float:
        """How busy each process of the app was; one cannot use more than one processor."""
        return self.api.cores / (self.replicas * self.workers)

    @property
    def is_too_little(self) -> bool:
        """Whether there was too little to judge the processors by."""
        if self.is_history and self.seconds < HISTORY_SECONDS:
            return True
        return self.api.cores < 0.01 * self.cores if self.requests is None else self.requests < 1


@dataclass(frozen=True)
class Advice:
    """What to change, why, and the lines of `.env` that do it."""

    says: str
    settings: dict[str, str] = field(default_factory=dict)


def summary(usage: Usage) -> str:
    """Say in a sentence how the machine was used."""
    api, db = usage.api, usage.services.get("db", Service())
    answers = ""
    if usage.p99 is not None and usage.requests is not None:
        answers = f"p99 {usage.p99 * 1000:.0f} ms at {usage.requests:.0f} requests/s; "
    return (
        f"api uses {api.cores / usage.cores:.0%} of {_cores(usage.cores)} at "
        f"{_count(usage.replicas, 'replica')}, memory {api.memory / MIB:.0f} of "
        f"{api.memory_limit / MIB:.0f} MiB each; {answers}the database is at "
        f"{db.cores / usage.cores:.0%}, the whole machine at {usage.share:.0%}"
    )


def advise(usage: Usage) -> list[Advice]:
    """Return what to change; one that says so if that is nothing."""
    found = [*_memory(usage), *_restarts(usage)]
    # What is recommended for a replica's memory is what more of them have to fit with.
    memory = next((one.settings["API_MEMORY"] for one in found if "API_MEMORY" in one.settings), "")
    budget = replace(usage.budget, replica=int(memory[:-1]) * MIB) if memory else usage.budget
    found += _connections(usage)
    if usage.is_too_little:
        return [*found, _too_little(usage)]
    found += [*_limited(usage), *_processors(usage, budget)]
    return [*found, *_waiting(usage)] or [Advice(_fine(usage))]


def _memory(usage: Usage) -> Iterator[Advice]:
    for name, one in usage.services.items():
        if not one.memory_limit:
            continue
        most, limit = f"{one.memory / MIB:.0f}", f"{one.memory_limit / MIB:.0f} MiB"
        if one.killed:
            wanted = _rounded(max(one.memory, one.memory_limit) * HEADROOM)
            yield _limit(usage, name, wanted, f"{name} ran out of its {limit} {_times(one.killed)}")
        elif one.memory >= NEAR * one.memory_limit and (usage.is_history or name == "api"):
            wanted = _rounded(one.memory * HEADROOM)
            yield _limit(usage, name, wanted, f"{name} had {most} of its {limit}")
        elif name == "api" and usage.seconds >= LONG_SECONDS and not usage.is_too_little:
            wanted = max(_rounded(one.memory * HEADROOM), LEAST[name])
            if wanted < one.memory_limit / 2:
                yield _limit(
                    usage, name, wanted, f"a replica had no more than {most} of its {limit}"
                )


def _limit(usage: Usage, name: str, wanted: int, why: str) -> Advice:
    variable = VARIABLES.get(name)
    if not variable:
        return Advice(
            f"{why}: raise its limit to {wanted // MIB} MiB in the compose.yaml that describes it"
        )
    settings = {variable: f"{wanted // MIB}m"}
    if name in usage.budget.others:
        with_more = replace(usage.budget, others={**usage.budget.others, name: wanted})
        if with_more.largest <= usage.replicas < usage.budget.largest:
            return Advice(f"{why}, and the machine has no room for more: it needs more memory")
    if name != "api" or wanted <= usage.budget.replica:
        return Advice(why, settings)
    room = replace(usage.budget, replica=wanted).largest - 1  # a deploy adds one
    if room >= usage.replicas:
        return Advice(why, settings)
    if room < FEWEST:
        return Advice(f"{why}, and the machine has no room for more: it needs more memory")
    says = f"{why}; with more, {_count(room, 'replica')} and a deploy's fit this machine"
    return Advice(says, {**settings, "API_REPLICAS": f"{room}"})


def _restarts(usage: Usage) -> Iterator[Advice]:
    for name, one in usage.services.items():
        if one.restarts > one.killed:
            times = _times(one.restarts - one.killed)
            yield Advice(f"{name} came back {times} for another reason: `make doctor`")


def _connections(usage: Usage) -> Iterator[Advice]:
    if usage.most_connections and usage.connections >= BUSY * usage.most_connections:
        yield Advice(
            f"the database had {usage.connections} of {usage.most_connections} connections open, "
            f"and each process of api holds up to four: fewer replicas, or a larger max_connections"
        )


def _too_little(usage: Usage) -> Advice:
    minutes = usage.seconds / 60
    if usage.is_history and usage.seconds < HISTORY_SECONDS:
        left = (HISTORY_SECONDS - usage.seconds) / 60
        return Advice(f"watched for {minutes:.0f} minutes only: ask again in {math.ceil(left)}")
    span = f"{minutes:.0f} minutes" if minutes >= 2 else f"{usage.seconds:.0f} s"
    return Advice(f"hardly any requests in {span}: ask again under the usual load")


def _limited(usage: Usage) -> Iterator[Advice]:
    for name, variable in _CPUS.items():
        one = usage.services.get(name, Service())
        count = usage.replicas if name == "api" else 1
        if one.core_limit and one.cores >= 0.9 * one.core_limit * count:
            says = f"{name} used {one.cores:.1f} of the {one.core_limit * count:.1f} cores it may"
            yield Advice(says, {variable: "0"})


def _processors(usage: Usage, budget: Budget) -> Iterator[Advice]:
    says = f"{usage.share:.0%} of {_cores(usage.cores)}"
    db = usage.services.get("db", Service()).cores
    enough = _even(usage.busy / AIM)
    foreign = usage.busy - usage.ours
    if usage.share >= BUSY and foreign > max(usage.ours, 0.3 * usage.cores):
        yield Advice(f"{says} are busy, {foreign:.1f} with what is not this stack: move that away")
    elif usage.share >= BUSY and db > usage.api.cores:
        yield Advice(
            f"{says} are busy, {db:.1f} with the database: look for slow queries and missing "
            "indexes (`make doctor`) before anything else"
        )
    elif usage.share >= BUSY:
        more = enough - usage.cores
        plural = "" if more == 1 else "s"
        yield Advice(f"{says} are busy: {_number(more)} more core{plural} before more replicas")
    elif usage.per_process >= BUSY:
        yield from _more_replicas(usage, budget)
    elif usage.seconds < LONG_SECONDS:
        return
    elif usage.replicas * usage.workers > usage.cores:
        yield from _fewer_replicas(usage)
    elif usage.share < IDLE and enough < usage.cores:
        yield Advice(f"{says} are busy at most: {_cores(enough)} would do")


def _more_replicas(usage: Usage, budget: Budget) -> Iterator[Advice]:
    wanted = math.ceil(usage.api.cores / AIM / usage.workers)
    # Each process can fill a core: more of them than cores only take turns.
    wanted = min(wanted, max(usage.cores // usage.workers, usage.replicas))
    room = budget.largest - 1  # a deploy adds one
    says = (
        f"each process of api keeps {usage.per_process:.0%} of a core busy, and one can use no "
        f"more than one of {_cores(usage.cores)}"
    )
    if wanted <= usage.replicas:
        return
    if room <= usage.replicas:
        yield Advice(f"{says}; memory has no room for another: more memory, or a lower API_MEMORY")
    else:
        yield Advice(says, {"API_REPLICAS": f"{min(wanted, room)}"})


def _fewer_replicas(usage: Usage) -> Iterator[Advice]:
    wanted = max(FEWEST, math.ceil(usage.api.cores / AIM / usage.workers))
    if wanted < usage.replicas and wanted * usage.workers <= usage.cores:
        yield Advice(
            f"{_count(usage.replicas * usage.workers, 'process')} take turns on "
            f"{_cores(usage.cores)}, and each keeps only {usage.per_process:.0%} of one busy: "
            "fewer hold less memory and fewer connections",
            {"API_REPLICAS": f"{wanted}"},
        )


def _waiting(usage: Usage) -> Iterator[Advice]:
    if usage.p99 and usage.p99 >= SLOW_SECONDS and usage.share < 0.5 > usage.per_process:
        yield Advice(
            f"p99 is {usage.p99:.1f} s while {usage.share:.0%} of the processors are busy: answers "
            "wait for slow queries (`make doctor`) or for other services; Traefik's log has each "
            "that took over a second"
        )


def _fine(usage: Usage) -> str:
    if usage.share >= 0.5 and usage.ours < usage.busy / 2:
        return (
            f"nothing to change: of {usage.share:.0%}, {usage.ours / usage.cores:.0%} is this stack"
        )
    if usage.share >= 0.5:
        return f"nothing to change: {usage.share:.0%} is within the 50 to 90 that one aims for"
    return f"nothing to change: there is room to grow, {usage.share:.0%} of the processors are busy"


def _rounded(size: float) -> int:
    return math.ceil(size / _STEP) * _STEP


def _even(count: float) -> int:
    return max(2, 2 * math.ceil(count / 2))


def _number(count: int) -> str:
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
    return words[count] if count < len(words) else f"{count}"


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{_number(count)} cores"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
