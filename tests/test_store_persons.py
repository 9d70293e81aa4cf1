"""Which Patients are one person, and that every row follows (`gateway/store/persons.py`)."""

from __future__ import annotations

import pytest
from store_samples import NUMBERS, check_consistent, observation, patient, put

from gateway.caller import GATEWAY
from gateway.store import Store, persons
from gateway.store.model import Delete, Put, Unit


def _person(store: Store, patient_id: str) -> int:
    return store.persons_of([patient_id])[patient_id]


def test_a_reference_comes_before_its_patient(store: Store) -> None:
    """A result may arrive before its Patient: both have the same person."""
    put(store, observation("o1", "p1"))
    before = _person(store, "p1")
    put(store, patient("p1"))
    assert before == _person(store, "p1")
    assert [before, before] == [store.read(t, i, GATEWAY).person  # type: ignore[union-attr]
                                for t, i in (("Observation", "o1"), ("Patient", "p1"))]
    check_consistent(store)


def test_patients_without_a_number_are_persons_of_their_own(store: Store) -> None:
    """Equal name and nothing else: two persons."""
    put(store, patient("p1"))
    put(store, patient("p2"))
    assert _person(store, "p1") != _person(store, "p2")
    assert {} == store.persons_of(["p3"])


def test_equal_numbers_are_one_person_at_once(store: Store) -> None:
    """A Patient that arrives with a known number joins its person; what belongs to nobody has person 0."""
    store.write(Unit([Put(patient("p1", NUMBERS[0])), Put(observation("o1", "p1"))]), GATEWAY)
    store.write(Unit([Put(patient("p2", NUMBERS[0])), Put(observation("o2", "p2")),
                      Put({"resourceType": "Organization", "id": "x", "name": "A"})]), GATEWAY)
    assert _person(store, "p1") == _person(store, "p2")
    assert ["p1", "p2"] == sorted(store.patients_of(_person(store, "p1")))
    organization = store.read("Organization", "x", GATEWAY)
    assert organization is not None and organization.person == 0
    check_consistent(store)


def test_two_of_one_number_in_one_unit(store: Store) -> None:
    """Patients that become one person within the same transaction."""
    store.write(Unit([Put(observation("o1", "p1")), Put(patient("p2", NUMBERS[0])), Put(patient("p1", NUMBERS[0])),
                      Put(patient("p3", NUMBERS[1]))]), GATEWAY)
    assert _person(store, "p1") == _person(store, "p2") != _person(store, "p3")
    check_consistent(store)


def test_a_number_that_comes_later_merges_all_rows(store: Store) -> None:
    """Two persons with data become one: bodies and index rows point to the older; what moved is written down."""
    store.write(Unit([Put(patient("p1", NUMBERS[0])), *(Put(observation(f"a{n}", "p1", str(n))) for n in range(5))]),
                GATEWAY)
    store.write(Unit([Put(patient("p2")), *(Put(observation(f"b{n}", "p2", str(n))) for n in range(5))]), GATEWAY)
    older, younger = _person(store, "p1"), _person(store, "p2")
    put(store, patient("p2", NUMBERS[0]))
    assert older == _person(store, "p1") == _person(store, "p2") < younger
    rows = [store.read("Observation", i, GATEWAY) for i in ("a0", "b0", "b4")]
    assert [older] * 3 == [row and row.person for row in rows]
    assert [1, 1, 1] == [row and row.version for row in rows]
    with store._database.read() as reader:
        assert [(younger, older)] == reader.all("SELECT before, after FROM person_change")
    check_consistent(store)


def test_who_loses_the_number_leaves_with_their_rows(store: Store) -> None:
    """A corrected number parts the person again: rows of the one that leaves go with it, the others stay."""
    for p in ("p1", "p2", "p3"):
        store.write(Unit([Put(patient(p, NUMBERS[0])), Put(observation(f"o-{p}", p))]), GATEWAY)
    shared = _person(store, "p1")
    put(store, patient("p1"))
    assert shared == _person(store, "p2") == _person(store, "p3") != _person(store, "p1")
    check_consistent(store)
    put(store, patient("p2", NUMBERS[1]))
    put(store, patient("p1", NUMBERS[1]))
    assert _person(store, "p1") == _person(store, "p2") != _person(store, "p3") == shared
    check_consistent(store)


def test_a_deleted_patient_leaves(store: Store) -> None:
    """A deleted Patient carries no number; put again, it joins again."""
    for p in ("p1", "p2"):
        store.write(Unit([Put(patient(p, NUMBERS[0])), Put(observation(f"o-{p}", p))]), GATEWAY)
    store.write(Unit([Delete("Patient", "p2")]), GATEWAY)
    assert _person(store, "p1") != _person(store, "p2")
    check_consistent(store)
    put(store, patient("p2", NUMBERS[0]))
    assert _person(store, "p1") == _person(store, "p2")
    check_consistent(store)


def test_a_result_that_changes_its_patient(store: Store) -> None:
    """A corrected subject moves the result to the other person."""
    put(store, observation("o1", "p1"))
    put(store, observation("o1", "p2"))
    row = store.read("Observation", "o1", GATEWAY)
    assert row is not None and row.person == _person(store, "p2") != _person(store, "p1")
    check_consistent(store)


def test_a_unit_that_merges_and_changes_what_it_moves(store: Store) -> None:
    """One transaction merges two persons and updates, moves and deletes their results."""
    store.write(Unit([Put(patient("p1", NUMBERS[0])), Put(observation("a", "p1"))]), GATEWAY)
    store.write(Unit([Put(patient("p2")), *(Put(observation(n, "p2")) for n in "bcde")]), GATEWAY)
    store.write(Unit([Put(observation("b", "p2", "9")), Put(patient("p2", NUMBERS[0])), Delete("Observation", "c"),
                      Put(observation("d", "p3")), Put(observation("f", "p2"))]), GATEWAY)
    assert _person(store, "p1") == _person(store, "p2") != _person(store, "p3")
    check_consistent(store)


@pytest.mark.parametrize("steps", [
    [{"a": "1"}, {"b": "12"}, {"c": "2"}, {"b": ""}],
    [{"a": "1"}, {"c": "2"}, {"b": "12"}, {"b": "1"}],
    [{"a": "12"}, {"b": "23"}, {"c": "34"}, {"d": "4"}, {"b": "3"}, {"a": "4"}],
])
def test_persons_are_connected_through_others(store: Store, steps: list[dict[str, str]],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """Persons are the connected components of Patients and keys, whatever the order, where Patients carry several."""
    from gateway.store import units
    monkeypatch.setattr(units, "person_keys", lambda resource, on: list(resource.get("_keys", "")))
    carried: dict[str, str] = {}
    for step in steps:
        for name, keys in step.items():
            carried[name] = keys
            put(store, {**patient(name), "_keys": keys})
            store.write(Unit([Put(observation(f"o-{name}", name))]), GATEWAY)
        numbers = store.persons_of(carried)
        assert _components(carried) == _groups(numbers)
        rows = {name: store.read("Observation", f"o-{name}", GATEWAY).person for name in carried}  # type: ignore[union-attr]
        assert numbers == rows


def _components(carried: dict[str, str]) -> list[list[str]]:
    group = {name: name for name in carried}
    for a in carried:
        for b in carried:
            if set(carried[a]) & set(carried[b]):
                old, new = group[b], group[a]
                group = {name: new if g == old else g for name, g in group.items()}
    return _groups(group)


def _groups(of: dict[str, object] | dict[str, int] | dict[str, str]) -> list[list[str]]:
    found: dict[object, list[str]] = {}
    for name, number in of.items():
        found.setdefault(number, []).append(name)
    return sorted(sorted(group) for group in found.values())


def test_a_stored_key_tells_no_number() -> None:
    """The table of keys holds digests."""
    assert NUMBERS[0].encode() not in persons.digest(NUMBERS[0])
    assert persons.digest("a") != persons.digest("b")
