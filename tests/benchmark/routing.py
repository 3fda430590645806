"""The choice among replicas by itself, without servers: ``python -m tests.benchmark.routing``.

``fleet`` sends 10^6 requests of many sessions to 100 replicas, of which some leave and others join.
``agents`` sends 8 sessions of an agent to 2 replicas and counts prompt tokens that are computed;
its requests are those of `server.benchmark.agent`.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import json
import random
import statistics
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import xxhash

from server.benchmark.agent import FULL, MessagesSession, ResponsesSession, Session
from server.benchmark.texts import some_text
from server.cluster.affinity.replica_choice import ReplicaChoice
from server.cluster.affinity.request_affinity import Affinity, request_affinity

Loads = Mapping[str, int]


class Policy(Protocol):
    """A way to choose."""

    def __call__(self, affinity: Affinity, loads: Loads) -> str:
        """The replica that should answer."""
        ...


def affinity_policy(routers: int = 1) -> Policy:
    """Ours; several routers that share nothing take turns."""
    choices = [ReplicaChoice() for _ in range(routers)]
    turns = itertools.cycle(choices)

    def choose(affinity: Affinity, loads: Loads) -> str:
        return next(turns).choose(affinity, loads)

    return choose


def random_policy() -> Policy:
    """Any replica."""
    source = random.Random(1)
    return lambda affinity, loads: source.choice(list(loads))


def least_loaded() -> Policy:
    """One of those with the fewest requests."""
    source = random.Random(1)

    def choose(affinity: Affinity, loads: Loads) -> str:
        fewest = min(loads.values())
        return source.choice([name for name, load in loads.items() if load == fewest])

    return choose


def consistent_hashing(points: int = 100) -> Policy:
    """A ring with ``points`` points of each replica, by the session; load is no matter."""
    rings: dict[frozenset[str], tuple[list[int], list[str]]] = {}

    def ring_of(names: frozenset[str]) -> tuple[list[int], list[str]]:
        if names not in rings:
            rings.clear()
            ring = sorted(
                (xxhash.xxh3_64_intdigest(f"{name}:{at}".encode()), name)
                for name in names
                for at in range(points)
            )
            rings[names] = [place for place, _ in ring], [name for _, name in ring]
        return rings[names]

    def choose(affinity: Affinity, loads: Loads) -> str:
        places, names = ring_of(frozenset(loads))
        at = bisect.bisect(places, xxhash.xxh3_64_intdigest(affinity.blocks[0]))
        return names[at % len(names)]

    return choose


# The fleet


REPLICAS = 100
SLOTS = 20_000
APPLICATIONS = 200
SYSTEM_BLOCKS = 12
MOST_TURNS = 40
CACHED_BLOCKS = 2000
MEAN_LOAD = 4.0
CHURN = 20_000
SAMPLE = 500


class Replica:
    """What a replica has cached: of each system prompt and each session so many blocks."""

    def __init__(self, most: int = CACHED_BLOCKS) -> None:
        self._most = most
        self._cached: OrderedDict[int, int] = OrderedDict()
        self._blocks = 0

    def hit(self, key: int, length: int, grown: int) -> int:
        """Blocks of ``length`` that are there; afterwards there are ``grown``."""
        had = self._cached.pop(key, 0)
        self._cached[key] = grown
        self._blocks += grown - had
        while self._blocks > self._most:
            self._blocks -= self._cached.popitem(last=False)[1]
        return min(had, length)


class Seen(NamedTuple):
    """What came of a simulation.

    Attributes:
        hits: The share of all blocks of prompts that were cached where the request went.
        same: The share of turns that went where the turn before them went.
        imbalance: The highest load of a replica, relative to the mean, on average over time.
        worst: The same in the worst hundredth of the time.
        busiest: The most requests that one replica had in all, relative to the mean.
        microseconds: What a choice took.
    """

    hits: float
    same: float
    imbalance: float
    worst: float
    busiest: float
    microseconds: float


class Slot:
    """A session, and after its last turn the next one in its place."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._number = 0
        self.busy = False
        self.begin()

    def begin(self) -> None:
        """A new session."""
        self._number += 1
        self.key = self._rank + SLOTS * self._number
        self.turns = 0
        self.last: str | None = None
        self._own: tuple[bytes, ...] = ()

    def blocks(self) -> tuple[bytes, ...]:
        """The next turn's: one more from the client, and the answer to the last."""
        for at in range(len(self._own), 2 * self.turns + 1):
            self._own += (at.to_bytes(2, "little") + self.key.to_bytes(8, "little"),)
        self.turns += 1
        return self._own


def zipf(count: int, seed: int) -> Iterator[int]:
    """Draws of 0 to ``count`` - 1, the n-th as likely as 1/n."""
    weights = 1 / np.arange(1, count + 1)
    source = np.random.default_rng(seed)
    while True:
        yield from source.choice(count, size=100_000, p=weights / weights.sum()).tolist()


def fleet(policy: Policy, requests: int, *, named: bool = False, alone: bool = False) -> Seen:
    """Let ``policy`` choose; ``named``: sessions have keys; ``alone``: one cache has all."""
    slots = [Slot(rank) for rank in range(SLOTS)]
    picks, applications = zipf(SLOTS, 1), zipf(APPLICATIONS, 2)
    system_of = [next(applications) for _ in slots]
    durations = np.random.default_rng(3).exponential(REPLICAS * MEAN_LOAD, size=requests)
    source = random.Random(4)
    replicas = {f"replica-{number}": Replica() for number in range(REPLICAS)}
    everything = Replica(CACHED_BLOCKS * REPLICAS)
    loads = dict.fromkeys(replicas, 0)
    running: list[tuple[float, int, str, Slot]] = []
    chosen: Counter[str] = Counter()
    hit = asked = same = followed = 0
    samples: list[float] = []
    seconds = 0.0
    for number in range(requests):
        while running and running[0][0] <= number:
            _, _, name, slot = heapq.heappop(running)
            slot.busy = False
            if name in loads:
                loads[name] -= 1
        if number % CHURN == CHURN // 2:
            gone = source.choice(list(loads))
            del loads[gone], replicas[gone]
        elif number % CHURN == 0 and number:
            replicas[f"replica-of-{number}"] = Replica()
            loads[f"replica-of-{number}"] = 0
        # A session waits for its answer before it goes on.
        rank = next(rank for rank in picks if not slots[rank].busy)
        slot, app = slots[rank], system_of[rank]
        own = slot.blocks()
        affinity = Affinity(own[:1] if named else own)
        began = time.perf_counter()
        name = policy(affinity, loads)
        seconds += time.perf_counter() - began
        cache = everything if alone else replicas[name]
        hit += cache.hit(-1 - app, SYSTEM_BLOCKS, SYSTEM_BLOCKS)
        hit += cache.hit(slot.key, len(own), len(own) + 1)
        asked += SYSTEM_BLOCKS + len(own)
        followed += slot.last is not None
        same += slot.last == name
        slot.last = name
        loads[name] += 1
        chosen[name] += 1
        heapq.heappush(running, (number + durations[number], number, name, slot))
        slot.busy = True
        if slot.turns == MOST_TURNS:
            slot.begin()
        if number % SAMPLE == 0 and number > REPLICAS * MEAN_LOAD * 3:
            samples.append(max(loads.values()) / statistics.mean(loads.values()))
    whole = [count for name, count in chosen.items() if name.count("-") == 1 and name in loads]
    return Seen(
        hits=hit / asked,
        same=same / followed,
        imbalance=statistics.mean(samples),
        worst=float(np.quantile(samples, 0.99)),
        busiest=max(whole) / statistics.mean(whole),
        microseconds=1e6 * seconds / requests,
    )


def run_fleet(requests: int) -> None:
    """Print a table for ``docs/cluster.md``."""
    cases: dict[str, Callable[[], Seen]] = {
        "affinity, by the prompt": lambda: fleet(affinity_policy(), requests),
        "affinity, by the prompt, two routers": lambda: fleet(affinity_policy(2), requests),
        "affinity, by a session's name": lambda: fleet(affinity_policy(), requests, named=True),
        "consistent hashing, by a session's name": lambda: fleet(consistent_hashing(), requests),
        "least loaded": lambda: fleet(least_loaded(), requests),
        "random": lambda: fleet(random_policy(), requests),
        "one cache that has all": lambda: fleet(random_policy(), requests, alone=True),
    }
    table_head("blocks found", "same replica", "load", "load, p99", "requests", "µs")
    for name, run in cases.items():
        seen = run()
        shares = f"{seen.hits:.3f}", f"{seen.same:.3f}"
        loads = f"{seen.imbalance:.2f}", f"{seen.worst:.2f}", f"{seen.busiest:.2f}"
        row(name, *shares, *loads, f"{seen.microseconds:.0f}")


def table_head(*names: str) -> None:
    """Print the head of a table."""
    row("", *names)
    row(*["---"] * (len(names) + 1))


def row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


# The agents


SESSIONS = 8
PLACES = 2
TOKENS_PER_SECOND = 1000.0
SECONDS_PER_ANSWER = 3.0
SECONDS_OF_A_TOOL = 2.0


class Prefixes:
    """The beginnings of prompts that a server has computed."""

    def __init__(self) -> None:
        self._known: set[int] = set()

    def compute(self, words: list[str]) -> int:
        """The words of a prompt that are not known yet; at least one, whose logits are needed."""
        state, chain = 0, []
        for word in words:
            state = hash((state, word))
            chain.append(state)
        known = bisect.bisect(range(len(chain)), False, key=lambda at: chain[at] not in self._known)
        self._known.update(chain[known:])
        return max(len(chain) - known, 1)


def prompt_words(body: dict[str, Any]) -> list[str]:
    """The prompt as a chat template would write it, cut into words."""
    said = [body.get("tools"), body.get("system"), *(body.get("messages") or body["input"])]
    return [word for each in said for word in repr(each).split()]


def agent_bodies(kind: type[Session], seed: int, *, alike: bool) -> Iterator[dict[str, Any]]:
    """The requests of one session; ``alike``: its system prompt is that of all others."""
    session = kind(FULL, 0 if alike else seed)
    for number in range(FULL.turns):
        text = json.dumps(session.body()).replace(session.question, f"Question {seed}.")
        yield json.loads(text)
        answer = some_text(FULL.answer, 1000 * seed + number)
        result = some_text(FULL.result, 2000 * seed + number)
        session.go_on(number, answer, result, f"Turn {number} is over.")


def agents(
    policy: Policy, kind: type[Session], *, places: int, alike: bool, named: bool = False
) -> int:
    """Prompt tokens that are computed for all turns of all sessions."""
    source = random.Random(5)
    servers = {f"replica-{number}": Prefixes() for number in range(places)}
    loads = dict.fromkeys(servers, 0)
    sessions = [agent_bodies(kind, seed, alike=alike) for seed in range(SESSIONS)]
    # Time, whether a request begins, its session, and the replica where one ends.
    events = [(source.random(), True, seed, "") for seed in range(SESSIONS)]
    heapq.heapify(events)
    computed = 0
    while events:
        now, begins, seed, name = heapq.heappop(events)
        if not begins:
            loads[name] -= 1
            pause = source.expovariate(1 / SECONDS_OF_A_TOOL)
            heapq.heappush(events, (now + pause, True, seed, ""))
            continue
        if (body := next(sessions[seed], None)) is None:
            continue
        headers = {b"x-session-id": b"%d" % seed} if named else {}
        name = policy(request_affinity(headers, body), loads)
        tokens = servers[name].compute(prompt_words(body))
        computed += tokens
        loads[name] += 1
        until = now + tokens / TOKENS_PER_SECOND + SECONDS_PER_ANSWER
        heapq.heappush(events, (until, False, seed, name))
    return computed


def run_agents() -> None:
    """Print a table for ``docs/cluster.md``."""
    columns = [
        (kind, alike) for kind in (MessagesSession, ResponsesSession) for alike in (True, False)
    ]
    policies: dict[str, tuple[Callable[[], Policy], bool]] = {
        "affinity, by the prompt": (affinity_policy, False),
        "affinity, by the prompt, two routers": (lambda: affinity_policy(2), False),
        "affinity, by a session's name": (affinity_policy, True),
        "least loaded": (least_loaded, False),
        "random": (random_policy, False),
    }
    one = [agents(random_policy(), kind, places=1, alike=alike) for kind, alike in columns]
    table_head(
        *(f"{kind.api.path}, {'one agent' if alike else '8 agents'}" for kind, alike in columns)
    )
    row("one server that has all", *(f"{tokens:,} tokens" for tokens in one))
    for name, (policy, named) in policies.items():
        ratios = [
            agents(policy(), kind, places=PLACES, alike=alike, named=named) / alone
            for (kind, alike), alone in zip(columns, one, strict=True)
        ]
        row(name, *(f"{ratio:.2f}" for ratio in ratios))


def main() -> None:
    """Run one simulation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("simulation", choices=["fleet", "agents"])
    parser.add_argument("--requests", type=int, default=1_000_000, help="of the fleet")
    options = parser.parse_args()
    if options.simulation == "fleet":
        run_fleet(options.requests)
    else:
        run_agents()


if __name__ == "__main__":
    main()
