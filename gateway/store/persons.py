"""Which person each Patient is, in the tables: numbers given, persons merged and parted.

Patients that carry an equal national identifier are one person, also through others: A and B share one, B and C
another.
Whoever only *gives* numbers works beside other writers; whoever *moves* rows from one person to another asks for the
database alone (`Retry(exclusive=True)`), because others may be writing rows of the former person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from gateway.store.database import Retry, Transaction

#: Patients whose keys change: those gone and those come.
Changed = dict[bytes, tuple[set[bytes], set[bytes]]]
_PERSONS = "SELECT patient, person FROM patient_person WHERE patient IN ?*"
_KEYS = "SELECT patient, key FROM person_key WHERE patient IN ?*"
_CARRIERS = "SELECT key, patient FROM person_key WHERE key IN ?*"


def digest(key: str) -> bytes:
    """A national key as it is stored."""
    return blake2b(key.encode(), digest_size=16).digest()


@dataclass(slots=True)
class Linked:
    """``person`` of every Patient asked for; ``moves``: Patient → (former person, new person)."""

    person: dict[bytes, int]
    moves: dict[bytes, tuple[int, int]] = field(default_factory=dict)


def link(transaction: Transaction, patients: Iterable[bytes], keys: Mapping[bytes, frozenset[bytes]],
         now: int) -> Linked:
    """Persons of ``patients`` after the Patients in ``keys`` carry these keys; writes all but the moved rows."""
    wanted = sorted({*patients, *keys})
    if not wanted:
        return Linked({})
    linked = Linked({bytes(patient): person for patient, person in transaction.among(_PERSONS, wanted)})
    changed = _changed(transaction, keys)
    if changed:
        _join(transaction, linked, changed, now)
    missing = [patient for patient in wanted if patient not in linked.person]
    if missing:
        fresh = list(zip(missing, transaction.next("person", len(missing)), strict=True))
        linked.person.update(fresh)
        transaction.insert("patient_person", ("patient", "person"), fresh)
    return linked


def _changed(transaction: Transaction, keys: Mapping[bytes, frozenset[bytes]]) -> Changed:
    """Patients whose keys differ from the stored: (gone, come)."""
    stored: dict[bytes, set[bytes]] = {patient: set() for patient in keys}
    for patient, key in transaction.among(_KEYS, sorted(keys)):
        stored[bytes(patient)].add(bytes(key))
    return {patient: (stored[patient] - carried, set(carried) - stored[patient])
            for patient, carried in keys.items() if stored[patient] != carried}


def _join(transaction: Transaction, linked: Linked, changed: Changed,
          now: int) -> None:
    touched = set().union(*(gone | come for gone, come in changed.values()))
    transaction.lock(touched)
    carriers: dict[bytes, set[bytes]] = {}
    for key, patient in transaction.among(_CARRIERS, sorted(touched)):
        carriers.setdefault(bytes(key), set()).add(bytes(patient))
    others = set().union(*carriers.values()) if carriers else set()
    _load(transaction, linked, others)
    simple = not any(gone for gone, _ in changed.values()) and _assign(transaction, linked, changed, carriers)
    if simple:
        _store_keys(transaction, changed)
        return
    if not transaction.exclusive:
        raise Retry(exclusive=True)
    _store_keys(transaction, changed)
    _part(transaction, linked, set(changed) | others, set(changed), now)


def _load(transaction: Transaction, linked: Linked, patients: set[bytes]) -> None:
    if unknown := sorted(patients - linked.person.keys()):
        linked.person.update((bytes(patient), person) for patient, person in transaction.among(_PERSONS, unknown))


def _assign(transaction: Transaction, linked: Linked, changed: Changed,
            carriers: dict[bytes, set[bytes]]) -> bool:
    """The everyday case, without moving a row: each Patient is new or stays. False, and nothing done: one must move."""
    given: dict[bytes, int] = {}
    carried = {key: set(patients) for key, patients in carriers.items()}
    for patient in sorted(changed):
        _, come = changed[patient]
        near = set().union(*(carried.get(key, set()) for key in come)) if come else set()
        persons = {person for other in near if (person := given.get(other) or linked.person.get(other))}
        own = linked.person.get(patient)
        if len(persons | ({own} if own else set())) > 1:
            return False
        given[patient] = own or (persons.pop() if persons else 0) or transaction.next("person")[0]
        for key in come:
            carried.setdefault(key, set()).add(patient)
    fresh = [(patient, person) for patient, person in sorted(given.items()) if patient not in linked.person]
    transaction.insert("patient_person", ("patient", "person"), fresh)
    linked.person.update(given)
    return True


def _store_keys(transaction: Transaction, changed: Changed) -> None:
    transaction.many("DELETE FROM person_key WHERE key = ? AND patient = ?",
                     sorted((key, patient) for patient, (gone, _) in changed.items() for key in gone))
    transaction.insert("person_key", ("key", "patient"),
                       sorted((key, patient) for patient, (_, come) in changed.items() for key in come))


def _part(transaction: Transaction, linked: Linked, patients: set[bytes], changed: set[bytes], now: int) -> None:
    """Persons anew for all who are or were connected with ``patients``, now that the keys are stored."""
    groups = _groups(transaction, patients)
    _load(transaction, linked, set().union(*groups))
    taken: set[int] = set()
    fresh: list[tuple[bytes, int]] = []
    # Who did not change keeps the number; of several numbers the oldest stays.
    for group in sorted(groups, key=lambda g: (not g - changed, min(linked.person.get(p, 1 << 62) for p in g))):
        numbers = sorted({linked.person[p] for p in group if p in linked.person} - taken)
        person = numbers[0] if numbers else transaction.next("person")[0]
        taken.add(person)
        for patient in sorted(group):
            before = linked.person.get(patient)
            if before is None:
                fresh.append((patient, person))
            elif before != person:
                linked.moves[patient] = (before, person)
            linked.person[patient] = person
    transaction.insert("patient_person", ("patient", "person"), fresh)
    transaction.many("UPDATE patient_person SET person = ? WHERE patient = ?",
                     [(after, patient) for patient, (_, after) in sorted(linked.moves.items())])
    transaction.insert("person_change", ("at", "patient", "before", "after"),
                       [(now, patient, *move) for patient, move in sorted(linked.moves.items())])


def _groups(transaction: Transaction, patients: set[bytes]) -> list[set[bytes]]:
    """Connected components of Patients and keys that touch ``patients``."""
    keys_of: dict[bytes, set[bytes]] = {}
    carriers: dict[bytes, set[bytes]] = {}
    frontier = set(patients)
    while frontier:
        keys_of |= {patient: set() for patient in frontier}
        found: set[bytes] = set()
        for patient, key in transaction.among(_KEYS, sorted(frontier)):
            keys_of[bytes(patient)].add(bytes(key))
            found.add(bytes(key))
        new_keys = found - carriers.keys()
        carriers |= {key: set() for key in new_keys}
        for key, patient in transaction.among(_CARRIERS, sorted(new_keys)):
            carriers[bytes(key)].add(bytes(patient))
        frontier = set().union(*(carriers[key] for key in new_keys)) - keys_of.keys() if new_keys else set()
    groups: list[set[bytes]] = []
    left = set(keys_of)
    while left:
        group, edge = set(), {left.pop()}
        while edge:
            group |= edge
            edge = {p for patient in edge for key in keys_of[patient] for p in carriers[key]} - group
        left -= group
        groups.append(group)
    return groups
