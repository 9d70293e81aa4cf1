"""Which person an order is about, and whose results contradict it (step 0).

Three ways lead from a Patient as the ordering hospital knows it to a person: its national identifier; the hospital's
own number; an id of one of our Patients. The national identifier counts most. Where the hospital's number leads to
somebody who carries *another* national identifier, one of the two is wrong, and nothing is recognised (``doubt``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import orjson

from gateway.caller import GATEWAY
from gateway.errors import Category, GatewayError
from gateway.fhir import resource
from gateway.identity import is_national_system, national_keys
from gateway.source import Source
from gateway.store import types

if TYPE_CHECKING:
    from gateway.store import Store

_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_NO_LETTER = re.compile(r"[\W_]+")
_SEXES = frozenset(("male", "female"))
#: v2-0203 codes of numbers that are no hospital's own patient number.
_OTHER_KINDS = frozenset(("NNCHN", "NI", "PPN", "DL", "SS"))


@dataclass(frozen=True, slots=True)
class Who:
    """``person``: 0 when nobody of ours. ``patient``: id of the ordering hospital's own Patient, "" without a number.

    ``known``: whether that Patient led to the person; else it is not stored yet. ``doubt``: the ways contradict.
    """

    person: int = 0
    patient: str = ""
    known: bool = False
    doubt: bool = False


def require_shape(patient: Mapping[str, Any]) -> None:
    """INVALID where what is read here of a Patient has another shape than R4 says."""
    if not isinstance(patient, Mapping) or patient.get("resourceType", "Patient") != "Patient":
        raise GatewayError(Category.INVALID, "must be a Patient", "Patient")
    for name in ("identifier", "name"):
        rows = patient.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise GatewayError(Category.INVALID, "must be a list of objects", f"Patient.{name}")
    for one in patient.get("identifier", []):
        if not all(isinstance(one.get(name, ""), str) for name in ("system", "value", "use")):
            raise GatewayError(Category.INVALID, "system, value and use must be strings", "Patient.identifier")
        for name in ("type", "period"):
            if not isinstance(one.get(name, {}), dict):
                raise GatewayError(Category.INVALID, f"{name} must be an object", "Patient.identifier")
        codings = one.get("type", {}).get("coding", [])
        if not isinstance(codings, list) or not all(isinstance(coding, dict) for coding in codings):
            raise GatewayError(Category.INVALID, "must be a list of objects", "Patient.identifier.type.coding")
        if not all(isinstance(one.get("period", {}).get(name, ""), str) for name in ("start", "end")):
            raise GatewayError(Category.INVALID, "must be dateTimes", "Patient.identifier.period")
    for one in patient.get("name", []):
        if not isinstance(one.get("given", []), list):
            raise GatewayError(Category.INVALID, "must be a list of strings", "Patient.name.given")
    for name in ("id", "gender", "birthDate"):
        if not isinstance(patient.get(name, ""), str):
            raise GatewayError(Category.INVALID, "must be a string", f"Patient.{name}")


def own_patients(patient: Mapping[str, Any], source: Source | None) -> list[str]:
    """Ids that our Patients of this hospital's numbers have, the most likely first."""
    if source is None:
        return []
    found: dict[str, None] = {}
    for identifier in patient.get("identifier") or ():
        value, system = identifier.get("value"), identifier.get("system") or ""
        if not isinstance(value, str) or not value or is_national_system(system):
            continue
        kinds = {coding.get("code") for coding in (identifier.get("type") or {}).get("coding") or ()}
        if kinds & _OTHER_KINDS:
            continue
        found[source.patient_id(system or source.patient_system(), value)] = None
    return list(found)


def find(store: Store, patient: Mapping[str, Any], source: Source | None, on: date) -> Who:
    """The person that a Patient means; see the module."""
    given = dict(patient)
    keys = national_keys(given, on)
    own = own_patients(patient, source)
    ids = [*own, str(patient["id"])] if patient.get("id") else own
    persons = store.persons_of(ids) if ids else {}
    patient_id = next((one for one in ids if one in persons), own[0] if own else "")
    by_number = persons.get(patient_id, 0)
    by_key = store.person_of(keys) if keys else 0
    others = set(persons.values()) - {by_number}
    if not keys or by_key == by_number:
        return Who(by_number or by_key, patient_id, by_number != 0, bool(others))
    if by_number and _contradicts(store, by_number, keys, on):
        return Who(by_key or by_number, patient_id, True, True)
    return Who(by_key or by_number, patient_id, by_number != 0, bool(others - {by_key}))


def _contradicts(store: Store, person: int, keys: list[str], on: date) -> bool:
    """Whether a person carries national identifiers, and none of these."""
    carried = {key for one in patients(store, person).values() for key in national_keys(one, on)}
    return bool(carried) and not carried & set(keys)


def patients(store: Store, person: int) -> dict[str, dict[str, Any]]:
    """A person's Patients by id."""
    return {row.id: _read(row.tail) | {"id": row.id, "_institution": row.institution}
            for row in store.named([types.key("Patient", one) for one in store.patients_of(person)], GATEWAY)}


def _read(tail: bytes) -> dict[str, Any]:
    """A resource without its head; nothing is written back, so that decimals need not be exact."""
    return orjson.loads(resource.head("Patient", "", 1, 0) + tail)


# ---------------------------------------------------------------- demographics

def doubtful(patient: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> set[str]:
    """The institutions whose own Patient of this person contradicts the order's.

    One that was merged into another says no more who somebody is: the hospital says so by the one that replaced it.
    """
    return {str(other["_institution"]) for other in others if not _replaced(other) and conflict(patient, other)}


def _replaced(patient: Mapping[str, Any]) -> bool:
    return any(link.get("type") == "replaced-by" for link in patient.get("link") or ())


def conflict(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What contradicts: "gender", "birthDate" or "name"; empty where nothing does. Only what both say is compared."""
    sexes = {one.get("gender"), other.get("gender")} & _SEXES
    if len(sexes) == 2:
        return "gender"
    born, also_born = str(one.get("birthDate") or "")[:10], str(other.get("birthDate") or "")[:10]
    common = min(len(born), len(also_born))
    if common and born[:common] != also_born[:common]:
        return "birthDate"
    return "name" if _names_conflict(names(one), names(other)) else ""


def names(patient: Mapping[str, Any]) -> set[str]:
    """A Patient's names in comparable form: NFKC, without case, blanks and punctuation; parts in both orders."""
    found: set[str] = set()
    for name in patient.get("name") or ():
        family = str(name.get("family") or "")
        given = "".join(str(part) for part in name.get("given") or () if part)
        found |= {_plain(str(name.get("text") or "")), _plain(family + given) if given else "",
                  _plain(given + family) if family and given else "",
                  _plain(family) if not given and not name.get("text") else ""}
    return found - {""}


def _plain(text: str) -> str:
    return _NO_LETTER.sub("", unicodedata.normalize("NFKC", text)).casefold()


def _names_conflict(one: set[str], other: set[str]) -> bool:
    """Names of one script are compared; 王小明 says nothing about Wang Xiaoming."""
    if one & other:
        return False
    return bool({bool(_HAN.search(name)) for name in one} & {bool(_HAN.search(name)) for name in other})
