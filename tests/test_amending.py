"""What is made on top of what is stored (`gateway/amending.py`): times, snapshots, and who is asked."""

from __future__ import annotations

import pytest
from support_source import make_source

from gateway import amending
from gateway.caller import GATEWAY
from gateway.source import Amendment, Change, Conversion, Resource, Snapshot
from gateway.store import Store
from gateway.store.model import Put, Unit

SOURCE = make_source()
WHOLE = SOURCE.id_for("Patient", "x")


def patient(**more: object) -> Resource:
    """The Patient of these tests."""
    return {"resourceType": "Patient", "id": WHOLE, "meta": {"source": "urn:huren:h1"},
            "identifier": [{"system": "urn:huren:h1:patient", "value": "x"}], **more}


def allergy(key: str, owner: str = WHOLE) -> Resource:
    """A part of the Patient."""
    return {"resourceType": "AllergyIntolerance", "id": SOURCE.id_within(WHOLE, "AllergyIntolerance", key),
            "patient": {"reference": f"Patient/{owner}"}, "code": {"text": key},
            "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical",
                                           "code": "active"}]}}


def store_all(store: Store, *puts: Put) -> None:
    """Write."""
    store.write(Unit(list(puts)), GATEWAY)


@pytest.mark.parametrize("held, told, late, becomes", [
    (None, 5, False, 5), (5, 7, False, 7), (7, 5, True, 7), (5, 5, False, 5), (5, None, False, 5),
    (None, None, False, None)])
def test_a_change_onto_what_is_stored(store: Store, held: int | None, told: int | None, late: bool,
                                      becomes: int | None) -> None:
    """It gets the stored resource, its own, and whether the stored one is later; the later time stays."""
    seen = []

    def onto(stored: Resource, sent: Resource, is_late: bool) -> Resource:
        seen.append((stored["gender"], sent["gender"], is_late))
        return {**stored, "birthDate": "1980"}

    conversion = Conversion([Change(patient(gender="female"), told, onto=onto)])
    [new] = amending.puts(store, conversion, "h1")
    assert (new.resource["gender"], new.if_match, new.institution, seen) == ("female", 0, "h1", [])
    store_all(store, Put(patient(gender="male"), "h1", held))
    [put] = amending.puts(store, conversion, "h1")
    assert (put.as_of, put.if_match, seen) == (becomes, 1, [("male", "female", late)])
    assert (put.resource["gender"], put.resource["birthDate"]) == ("male", "1980")


def test_a_snapshot_asks_about_each_part_that_it_does_not_keep(store: Store) -> None:
    """Parts of another whole, other types, kept and told ones are not asked about; who looks alike is."""
    first, second, third = (allergy(key) for key in ("a", "b", "c"))
    alike = {**allergy("d", "somebody-else")}
    other = {**allergy("e"), "id": SOURCE.id_within(SOURCE.id_for("Patient", "y"), "AllergyIntolerance", "e")}
    store_all(store, *(Put(one, "h1", 5) for one in (patient(), first, second, third, alike, other)))
    asked = []

    def retire(held: Resource) -> Resource | None:
        asked.append(held["code"]["text"])
        return {**held, "note": [{"text": "gone"}]} if held["patient"]["reference"].endswith(WHOLE) else None

    conversion = Conversion([Change(third, 7)], snapshots=[
        Snapshot("AllergyIntolerance", WHOLE, frozenset({first["id"]}), retire, 7)])
    [put] = amending.puts(store, conversion, "h1")
    assert sorted(asked) == ["b", "d"]
    assert (put.resource["id"], put.as_of, put.on_older) == (second["id"], 7, "skip")
    assert sorted(store.parts("AllergyIntolerance", WHOLE)) == sorted(r["id"] for r in (first, second, third, alike))


def test_an_amendment_that_applies_keeps_the_later_time(store: Store) -> None:
    """``apply``: changed although what is stored is later; ``refuse`` and ``skip`` leave that to the store."""
    store_all(store, Put(patient(), "h1", 9))
    for on_older, as_of in (("apply", 9), ("refuse", 5), ("skip", 5)):
        amendment = Amendment("Patient", WHOLE, lambda held: held and {**held, "active": False}, 5, on_older)
        [put] = amending.puts(store, Conversion(amendments=[amendment]), "h1")
        assert (put.as_of, put.on_older) == (as_of, on_older if on_older == "skip" else "refuse")
    assert amending.puts(store, Conversion(amendments=[Amendment("Patient", "nobody", lambda held: held)]), "h1") == []
