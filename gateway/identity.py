"""Which Patients are one person: by a valid national identifier, or because their hospital links them. Pure.

A link (``Patient.link``) counts where *both* Patients name each other: nobody makes another hospital's Patient their
own, and a link that is taken back on either side parts them again.
The number of the resident identity card (GB 11643) holds region, birth date, order (odd: male) and a check digit
(ISO 7064 MOD 11-2), so that it can be held against the Patient that carries it.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from typing import Any

from stdnum.cn import ric
from stdnum.exceptions import ValidationError

#: Resident identity card number: the OID that the Chinese shared-document standards give its issuer (WS/T 483 and 500
#: write ``<id root="2.16.156.10011.1.3">``) in FHIR's form; what our conversions write.
NATIONAL_ID_SYSTEM = "urn:oid:2.16.156.10011.1.3"
#: The same under other spellings: a bare OID as in CDA, and with an upper-case scheme as careless senders write it.
NATIONAL_ID_ALIASES = frozenset(("2.16.156.10011.1.3", "oid:2.16.156.10011.1.3", "URN:OID:2.16.156.10011.1.3"))
#: HL7 table 0203 "NNxxx", national person identifier with the country's ISO 3166-1 alpha-3 code: counts where the
#: identifier has no system of its own.
_TYPE = ("http://terminology.hl7.org/CodeSystem/v2-0203", "NNCHN")

#: Provinces of GB/T 2260, and the permits of residents from Hong Kong, Macao (81, 82) and Taiwan (71, 83).
_FORM = re.compile(r"(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3])[0-9]{15}[0-9X]", re.ASCII).fullmatch
_PATIENT_REFERENCE = re.compile(r"Patient/([A-Za-z0-9\-.]{1,64})(?:/_history/.*)?\Z").match
_EARLIEST = 1880  # nobody living was born before; 1111-11-11 is a filler


def national_keys(patient: dict[str, Any], on: date | None = None) -> list[str]:
    """The Patient's national identifiers as stable keys ``system|number``; equal keys mean one person.

    Left out: a number whose check digit, province or date is wrong; one that contradicts the Patient's ``birthDate``
    (as precise as that is) or ``gender``; ``use`` = ``old``; a period that has not begun or has ended ``on`` that day
    (without ``on``, a period with any end counts as ended: rather two persons than two people in one). A Patient with
    two different valid numbers has none: one of them is somebody else's. Name and birth date never make a key.
    """
    found = {number for identifier in patient.get("identifier", ())
             if _national(identifier) and _current(identifier, on)
             and (number := normalised(identifier.get("value"))) and not _contradicts(number, patient)}
    return [f"{NATIONAL_ID_SYSTEM}|{number}" for number in found] if len(found) == 1 else []


def person_keys(patient: dict[str, Any], on: date | None = None) -> list[str]:
    """All that makes Patients one person: equal keys of two Patients do. ``national_keys`` and ``link_keys``."""
    return [*national_keys(patient, on), *link_keys(patient)] if patient.get("link") else national_keys(patient, on)


def link_keys(patient: dict[str, Any]) -> list[str]:
    """A key for each other Patient that this one is linked to; the other has the same key if it links back.

    Every type of link says "the same person" (patient.html, Patient.link), so that the type makes no difference.
    """
    own = patient.get("id", "")
    others = {match[1] for link in patient.get("link", ()) if isinstance(link, dict)
              if (match := _PATIENT_REFERENCE((link.get("other") or {}).get("reference") or ""))}
    return [f"link|{min(own, other)}|{max(own, other)}" for other in sorted(others - {own})]


def completed(held: dict[str, Any], copy: dict[str, Any], on: date | None = None) -> dict[str, Any] | None:
    """A Patient with the national identifier that only an older copy of it carries; None: there is nothing to add.

    A hospital's registration may know no number where its laboratory's copy of the patient has one. It is taken over
    where it fits birth date and sex of both, and where no other valid one is there.
    """
    if not (keys := national_keys(copy, on)) or national_keys(held, on):
        return None
    known = held.get("identifier", [])
    added = [one for one in copy["identifier"] if _national(one) and one not in known]
    made = {**held, "identifier": [*known, *added]}
    return made if added and national_keys(made, on) == keys else None


def normalised(value: Any) -> str:
    """The valid 18-character number in ASCII with an upper-case X, or an empty string.

    Full-width characters, spaces and hyphens are understood. The 15-digit numbers of before 1999 have no check digit
    and are not accepted. Of the region only the province is judged: `stdnum` holds the county against the year of
    birth, but numbers were given out from 1984 on, to people of every age, with the counties of that day.
    """
    if not isinstance(value, str):
        return ""
    number = ric.compact(unicodedata.normalize("NFKC", value))
    if not _FORM(number) or number[-1] != ric.calc_check_digit(number):
        return ""
    try:
        born = ric.get_birth_date(number)
    except ValidationError:
        return ""
    return number if born.year >= _EARLIEST else ""


def is_national_system(system: str) -> bool:
    """Whether a system URI means the resident identity card number."""
    return system == NATIONAL_ID_SYSTEM or system in NATIONAL_ID_ALIASES


def _national(identifier: dict[str, Any]) -> bool:
    if system := identifier.get("system"):
        return is_national_system(system)
    return any((coding.get("system"), coding.get("code")) == _TYPE
               for coding in identifier.get("type", {}).get("coding", ()))


def _current(identifier: dict[str, Any], on: date | None) -> bool:
    """``Identifier.use`` and ``period``, compared to the precision that both sides have (datatypes.html#Period)."""
    if identifier.get("use") == "old":
        return False
    period = identifier.get("period", {})
    start, end = period.get("start", "")[:10], period.get("end", "")[:10]
    if on is None:
        return not end
    day = on.isoformat()
    return not (start and day[:len(start)] < start) and not (end and day[:len(end)] > end)


def _contradicts(number: str, patient: dict[str, Any]) -> bool:
    """Whether the birth date or the sex within a valid number is another than the Patient's."""
    born = ric.get_birth_date(number).isoformat()
    birth_date = patient.get("birthDate", "")[:10]
    sex = "male" if int(number[16]) % 2 else "female"
    return born[:len(birth_date)] != birth_date or patient.get("gender") in ({"male", "female"} - {sex})
