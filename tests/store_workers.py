"""Programs that tests of the store run as processes of their own: ``python store_workers.py NAME DATA URL SEED``."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from store_samples import NUMBERS, change, line, observation, patient

from gateway.caller import GATEWAY
from gateway.config import Settings
from gateway.errors import GatewayError
from gateway.store import Store, open_store
from gateway.store.model import Delete, Put, Receipt, Settlement, Unit


def same(store: Store, seed: str) -> None:
    """Write the same few resources as everyone else, with merges, partings and deletions."""
    rng = random.Random(seed)
    for n in range(40):
        operations: list[Put | Delete] = []
        for _ in range(rng.randrange(1, 6)):
            name, value = f"p{rng.randrange(6)}", str(rng.randrange(100))
            kind = rng.randrange(10)
            if kind < 3:
                operations.append(Put(patient(name, rng.choice(("", *NUMBERS[:3]))), "hz"))
            elif kind < 4:
                operations.append(Delete("Patient", name))
            elif kind < 5:
                operations.append(Delete("Observation", f"o{rng.randrange(8)}"))
            else:
                operations.append(Put(observation(f"o{rng.randrange(8)}", name, value), rng.choice(("hz", "nb"))))
        store.write(Unit(operations), GATEWAY)
        print(n, flush=True)


def own(store: Store, seed: str) -> None:
    """Write resources that no one else writes, for Patients whom everyone writes."""
    for n in range(60):
        store.write(Unit([Put(patient(f"shared{n % 5}", NUMBERS[n % 4])),
                          *(Put(observation(f"{seed}-{n}-{k}", f"shared{n % 5}", str(k)), f"inst{seed}")
                            for k in range(4))]), GATEWAY)
        print(n, flush=True)


def endless(store: Store, seed: str) -> None:
    """Record and store messages of five resources, saying each that was acknowledged, until killed."""
    n = 0
    while True:
        keep = store.note if n % 2 else store.record
        inbound = keep(f"message {seed} {n}".encode(), "hl7v2", "test")
        unit = Unit([Put(observation(f"{seed}-{n}-{k}", f"p{n % 50}", str(k))) for k in range(5)],
                    Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id, resources=5)))
        store.write(unit, GATEWAY)
        print(n, flush=True)
        n += 1


def received(store: Store, seed: str) -> None:
    """Record one message, then wait for the end."""
    print(store.record(f"message {seed}".encode(), "hl7v2", "test").id, flush=True)
    sys.stdin.read()


def noted(store: Store, seed: str) -> None:
    """Note three messages, settle the second, then wait for the end."""
    for n in range(3):
        inbound = store.note(f"message {seed} {n}".encode(), "hl7v2", "peer", "id", "LAB1")
        if n == 1:
            store.write(Unit([], Settlement(inbound.id, "stored", "hz", "", Receipt(inbound.id))), GATEWAY)
    print("noted", flush=True)
    sys.stdin.read()


def resend(store: Store, seed: str) -> None:
    """Record the same messages as everyone else and store each that is not stored."""
    for n in range(40):
        inbound = (store.note if n % 3 else store.record)(f"message {n}".encode(), "hl7v2", "test")
        if inbound.receipt is None:
            store.write(Unit([Put(observation(f"o{n}", "p1", str(n)))],
                             Settlement(inbound.id, "stored", "hz", "ORU^R01", Receipt(inbound.id, resources=1))),
                        GATEWAY)
        print(n, flush=True)


def decide(store: Store, seed: str) -> None:
    """Change lines that everyone changes, beside lines and resources of its own, with merges; says how many won."""
    rng, won = random.Random(seed), 0
    for n in range(60):
        number = f"shared-{rng.randrange(8)}"
        known = store.lines([line(number).id])
        shared = change(next(iter(known.values()), line(number, f"p{n % 3}")), rng.choice(("viewed", "recognised")))
        operations: list[Put | Delete] = [Put(observation(f"{seed}-{n}", f"p{n % 3}", str(n)))]
        if n % 7 == 0:
            operations.append(Put(patient(f"p{n % 3}", rng.choice(NUMBERS[:2]))))
        try:
            store.write(Unit(operations, ledger=[shared, change(line(f"{seed}-{n}", f"p{n % 3}"))]), GATEWAY)
            won += 2
        except GatewayError as error:
            assert error.detail == "moved"
    print(won, flush=True)


def decide_endless(store: Store, seed: str) -> None:
    """Make a line with its event and a resource, saying each that was acknowledged, until killed."""
    n = 0
    while True:
        store.write(Unit([Put(observation(f"{seed}-{n}", f"p{n % 50}", str(n)))],
                         ledger=[change(line(f"{seed}-{n}", f"p{n % 50}"))]), GATEWAY)
        print(n, flush=True)
        n += 1


def once(store: Store, seed: str) -> None:
    """Use the same values as everyone else."""
    print(*(store.use_once("jti", str(n), 1 << 60) for n in range(20)), flush=True)


if __name__ == "__main__":
    name, data, url, seed = sys.argv[1:5]
    program = {f.__name__: f for f in (same, own, endless, received, noted, resend, decide,
                                            decide_endless, once)}[name]
    opened = open_store(Settings(data=Path(data), database_url=url))
    program(opened, seed)
    opened.close()
