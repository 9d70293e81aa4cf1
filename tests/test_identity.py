"""`gateway.identity`: a valid national identifier makes two Patients one person, and nothing weaker does."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum.cn import ric

from gateway.identity import (
    NATIONAL_ID_ALIASES,
    NATIONAL_ID_SYSTEM,
    completed,
    is_national_system,
    link_keys,
    national_keys,
    normalised,
    person_keys,
)

#: 330106 and 440305 are younger than many who have them; 810000 is the permit of a resident from Hong Kong.
REGIONS = ("110105", "330106", "440305", "510104", "810000", "830000")


def number(region: str, born: date, order: int) -> str:
    """A number with the right check digit, for nobody."""
    digits = f"{region}{born:%Y%m%d}{order:03d}"
    return digits + ric.calc_check_digit(digits + "0")


NUMBERS = st.builds(number, st.sampled_from(REGIONS), st.dates(date(1930, 1, 1), date(2020, 1, 1)), st.integers(1, 999))
FEMALE = number("110105", date(1949, 12, 31), 2)


def patient(value: str, **more: Any) -> dict[str, Any]:
    """A Patient with one identifier of the national system."""
    identifier = {"system": NATIONAL_ID_SYSTEM, "value": value} | more.pop("identifier", {})
    own = {"system": "urn:huren:a:patient", "value": "7"}
    return {"resourceType": "Patient", "identifier": [own, identifier]} | more


@given(NUMBERS)
def test_a_valid_number_that_fits_is_the_key(value: str) -> None:
    """With birth date and sex as the number has them, or without."""
    born, sex = ric.get_birth_date(value), "male" if int(value[16]) % 2 else "female"
    expected = [f"{NATIONAL_ID_SYSTEM}|{value}"]
    assert national_keys(patient(value)) == expected
    for birth_date in (f"{born}", f"{born:%Y-%m}", f"{born:%Y}"):
        assert national_keys(patient(value, birthDate=birth_date, gender=sex)) == expected
    assert national_keys(patient(value, gender="unknown")) == expected


@given(NUMBERS, st.dates(date(1930, 1, 1), date(2020, 1, 1)))
def test_a_number_that_contradicts_the_patient_is_no_key(value: str, other: date) -> None:
    """Another birth date, month or year, or the other sex: rather two persons than two people in one."""
    born, wrong = ric.get_birth_date(value), "female" if int(value[16]) % 2 else "male"
    assert national_keys(patient(value, gender=wrong)) == []
    for size in (4, 7, 10):
        if str(other)[:size] != str(born)[:size]:
            assert national_keys(patient(value, birthDate=str(other)[:size])) == []


@given(NUMBERS, st.integers(0, 17), st.sampled_from("0123456789X"))
def test_one_wrong_character_is_no_key(value: str, place: int, wrong: str) -> None:
    """The check digit finds every single substitution."""
    if wrong != value[place]:
        assert national_keys(patient(value[:place] + wrong + value[place + 1:])) == []


@given(NUMBERS, st.sampled_from(("{}", " {} ", "　{}")), st.booleans(), st.booleans())
def test_spellings_of_one_number_are_one_key(value: str, form: str, lower: bool, wide: bool) -> None:
    """Full-width characters, a small x and spaces around are the same number."""
    spelt = form.format(value.lower() if lower else value)
    if wide:
        spelt = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in spelt)
    assert normalised(spelt) == value
    assert national_keys(patient(spelt)) == national_keys(patient(value))


@pytest.mark.parametrize("value", ["", "1", "110105491231002", "11010519491231002",
                                   number("999999", date(1949, 12, 31), 2),
                                   number("110105", date(1111, 11, 11), 111),
                                   "110105194902310028", None, 7])
def test_what_is_no_number(value: Any) -> None:
    """Old 15-digit numbers, unknown provinces, impossible days, fillers, other types."""
    assert normalised(value) == ""
    assert national_keys(patient(value)) == []


@pytest.mark.parametrize("system", sorted(NATIONAL_ID_ALIASES))
def test_aliases_give_the_same_key(system: str) -> None:
    """The key does not tell how the sender spelt the system."""
    assert is_national_system(system)
    assert national_keys(patient(FEMALE, identifier={"system": system})) == national_keys(patient(FEMALE)) != []


def test_only_the_national_system_counts() -> None:
    """A medical record number that looks like one is none; without a system, the type NNCHN says what it is."""
    assert national_keys(patient(FEMALE, identifier={"system": "urn:huren:a:patient"})) == []
    bare = patient(FEMALE)
    del bare["identifier"][1]["system"]
    assert national_keys(bare) == []
    bare["identifier"][1]["type"] = {"coding": [
        {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "NNCHN"}]}
    assert national_keys(bare) == [f"{NATIONAL_ID_SYSTEM}|{FEMALE}"]


@pytest.mark.parametrize(("identifier", "on", "counts"), [
    ({"use": "old"}, None, False), ({"use": "official"}, None, True), ({"use": "temp"}, None, True),
    ({"period": {"start": "2020"}}, None, True), ({"period": {"end": "2036-01-01"}}, None, False),
    ({"period": {"end": "2036-01-01"}}, date(2026, 11, 22), True),
    ({"period": {"end": "2026-11-22"}}, date(2026, 11, 22), True),
    ({"period": {"end": "2026-11-21T23:59:59+08:00"}}, date(2026, 11, 22), False),
    ({"period": {"end": "2026-11"}}, date(2026, 11, 22), True),
    ({"period": {"end": "2025"}}, date(2026, 11, 22), False),
    ({"period": {"start": "2026-11-23"}}, date(2026, 11, 22), False),
    ({"period": {"start": "2026"}}, date(2026, 11, 22), True)])
def test_old_and_expired_identifiers_do_not_count(identifier: dict[str, Any], on: date | None, counts: bool) -> None:
    """``use`` and ``period`` decide, to the precision they have; without a day, an end counts as reached."""
    assert bool(national_keys(patient(FEMALE, identifier=identifier), on)) == counts


def test_two_different_numbers_are_none() -> None:
    """One of them is somebody else's, and nobody can say which; the same number twice is one."""
    other = number("330106", date(1949, 12, 31), 4)
    two = patient(FEMALE)
    two["identifier"].append({"system": NATIONAL_ID_SYSTEM, "value": other})
    assert national_keys(two) == []
    two["identifier"][-1]["value"] = FEMALE.lower()
    assert national_keys(two) == [f"{NATIONAL_ID_SYSTEM}|{FEMALE}"]
    two["identifier"].append({"system": NATIONAL_ID_SYSTEM, "value": other, "use": "old"})
    assert national_keys(two) == [f"{NATIONAL_ID_SYSTEM}|{FEMALE}"]


def test_name_and_birth_date_are_never_enough() -> None:
    """Two Patients alike in all but a number have no key in common."""
    assert national_keys({"resourceType": "Patient", "name": [{"text": "王伟"}], "birthDate": "1980-01-01",
                          "gender": "male", "telecom": [{"system": "phone", "value": "1"}]}) == []


# ---------------------------------------------------------------- links

def linked(patient_id: str, *others: str, kind: str = "seealso") -> dict[str, Any]:
    """A Patient that names others."""
    return {"resourceType": "Patient", "id": patient_id,
            "link": [{"other": {"reference": other}, "type": kind} for other in others]}


@pytest.mark.parametrize("kind", ["replaced-by", "replaces", "refer", "seealso"])
def test_two_patients_that_name_each_other_have_an_equal_key(kind: str) -> None:
    """Whatever the type; a version's reference names the Patient too."""
    one, other = linked("a", "Patient/b", kind=kind), linked("b", "Patient/a/_history/3", kind=kind)
    assert link_keys(one) == link_keys(other) == ["link|a|b"]
    assert person_keys(one) == ["link|a|b"] and person_keys({"resourceType": "Patient", "id": "c"}) == []


@pytest.mark.parametrize("other", ["Patient/a", "RelatedPerson/b", "https://elsewhere.example/Patient/b", "#b",
                                   "Patient/"])
def test_what_is_no_link_to_another_patient(other: str) -> None:
    """Itself, a RelatedPerson, somebody elsewhere, something contained, nobody."""
    assert link_keys(linked("a", other)) == []


@given(st.lists(st.sampled_from("abcd"), max_size=6))
def test_each_other_patient_has_one_key(others: list[str]) -> None:
    """However often it is named, in whatever order."""
    keys = link_keys(linked("b", *(f"Patient/{other}" for other in others)))
    assert keys == sorted({f"link|{min('b', other)}|{max('b', other)}" for other in others} - {"link|b|b"})


def test_a_patient_is_completed_from_an_older_copy() -> None:
    """The number that only the copy has is added behind the others; birth date and sex of both must fit it."""
    held = {"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:x", "value": "7"}], "gender": "female"}
    made = completed(held, patient(FEMALE))
    assert made == {**held, "identifier": [held["identifier"][0], {"system": NATIONAL_ID_SYSTEM, "value": FEMALE}]}
    assert national_keys(made) == [f"{NATIONAL_ID_SYSTEM}|{FEMALE}"]
    assert completed(made, patient(FEMALE)) is None
    assert completed({**held, "gender": "male"}, patient(FEMALE)) is None
    assert completed({**held, "birthDate": "1950"}, patient(FEMALE)) is None
    assert completed(held, patient(FEMALE, gender="male")) is None
    assert completed(held, patient(FEMALE[:-1] + "0")) is None
    other = patient(number("330106", date(1949, 12, 31), 4))
    assert completed(other, patient(FEMALE)) is None
