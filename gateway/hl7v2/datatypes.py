"""HL7 data types as FHIR data types, after the guide's datatype maps: coded, identifier, name, address, quantity."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from gateway.errors import GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.message import Part
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.source import Source
from gateway.terminology import UCUM, is_ucum, system_uri, ucum

_OID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TYPE_CODE = re.compile(r"[A-Z][A-Z0-9-]{0,9}")
_NATIONAL_FORM = re.compile(r"\d{17}[\dXx]|\d{15}")
_DECIMAL = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})", re.ASCII)
_CJK = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_POWER_HEAD = re.compile(r"(?:.*[^\d])?10")
_POWER_TAIL = re.compile(r"\d{1,2}(?:[/.].*)?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[^\s\\]+")
_EN_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"


def code_text(text: str) -> str:
    """FHIR's code: no blanks around, single ones within."""
    return " ".join(text.split())


def coding_system(name: str, local: str) -> str:
    """The URI of a coding system by its name in table 0396 or its OID; ``local`` where only the hospital knows it."""
    if not name:
        return local
    if uri := system_uri(name):
        return uri
    return f"urn:oid:{name}" if _OID.fullmatch(name) else local


def codeable(part: Part, source: Source, place: str, table: str = "") -> dict[str, Any]:
    """CWE, CE, CNE, CF, IS or ID as CodeableConcept; empty when nothing is said.

    A code whose system is missing or local gets the hospital's own system for that place
    (``urn:huren:<institution>:table:SPM-4``). The manifest's table for the place may name the standard's code: then it
    stands first, in v2 table ``table``, and the hospital's own beside it.
    """
    if not part.raw or part.raw == '""':
        return {}
    local = source.system(f"table:{place}")
    codings: list[dict[str, str]] = []
    size = len(part)
    for code_at, version_at in ((1, 7), (4, 8), (10, 13)):
        if code_at > size:
            break
        code = code_text(part.get(code_at))
        if not code:
            continue
        coding = {"system": coding_system(part.get(code_at + 2), local)}
        if version := part.get(version_at):
            coding["version"] = version
        coding["code"] = code
        if display := part.get(code_at + 1):
            coding["display"] = display
        if coding not in codings:
            codings.append(coding)
    first = code_text(part.get(1))
    if table and source.tables and first and (standard := source.table(place, first)) != first:
        codings.insert(0, {"system": tables.V2 + table, "code": standard})
    text = part.get(9) or part.get(2) or part.get(5) or first
    concept: dict[str, Any] = {"coding": codings} if codings else {}
    if text.strip():
        concept["text"] = text
    return concept


def identifier_system(authority: Part, kind: str, source: Source, type_code: str = "", value: str = "") -> str:
    """The system URI of an identifier by its assigning authority (HD) and type; the hospital's own ``kind`` if neither
    names one."""
    namespace, universal, universal_type = authority.get(1), authority.get(2), authority.get(3).upper()
    for name in (namespace, universal, type_code):
        if name and (system := source.identifier_systems.get(name)):
            return system
    if is_national(type_code, value):
        return NATIONAL_ID_SYSTEM
    if universal and (universal_type in ("ISO", "OID", "") and _OID.fullmatch(universal)):
        return f"urn:oid:{universal}"
    if universal and (universal_type in ("UUID", "GUID") and _UUID.fullmatch(universal)):
        return f"urn:uuid:{universal.lower()}"
    if universal and universal_type in ("URI", "URL") and _URL.fullmatch(universal):
        return universal
    if not namespace and _OID.fullmatch(universal or ""):
        return f"urn:oid:{universal}"
    system = source.system(kind)
    owner = namespace or universal
    return f"{system}:{quote(owner, safe='')}" if owner else system


def is_national(type_code: str, value: str) -> bool:
    """Whether an identifier type (with the form of the number, where the type alone is not sure) means the Chinese
    resident identity card."""
    kind = type_code.upper()
    return kind in tables.NATIONAL_TYPES or (kind in tables.NATIONAL_IF_FORM
                                             and _NATIONAL_FORM.fullmatch(value) is not None)


def identifier_from(part: Part, kind: str, source: Source, default_type: str = "") -> dict[str, Any] | None:
    """CX as Identifier; None without a number."""
    value = part.get(1).strip()
    if not value:
        return None
    type_code = part.get(5) or default_type
    system = identifier_system(part.part(4), kind, source, type_code, value)
    made = identifier(value, system, type_code)
    if len(part) > 6 and (valid := period_of(part.get(7), part.get(8))):
        made["period"] = valid
    return made


def period_of(start: str, end: str) -> dict[str, str]:
    """Two times as the days of a Period, for names, numbers and addresses, where the hour says nothing; an impossible
    one, and an end before the start (per-1), are left out."""
    first, last = _day(start), _day(end)
    if first and last and last[:len(first)] < first[:len(last)]:
        last = ""
    return {key: day for key, day in (("start", first), ("end", last)) if day}


def _day(text: str) -> str:
    try:
        return timestamps.date(text[:8], "UTC") if text else ""
    except GatewayError:
        return ""


def identifier(value: str, system: str, type_code: str = "") -> dict[str, Any]:
    """An Identifier; a type that is no code of table 0203 by its form becomes text."""
    made: dict[str, Any] = {}
    if type_code:
        made["type"] = identifier_type(type_code)
    made["system"] = system
    made["value"] = value.upper() if system == NATIONAL_ID_SYSTEM else value  # GB 11643 writes the check character X
    return made


def identifier_type(code: str) -> dict[str, Any]:
    """Table 0203 as CodeableConcept."""
    if _TYPE_CODE.fullmatch(code):
        return {"coding": [{"system": tables.IDENTIFIER_TYPE, "code": code}]}
    return {"text": code}


def entity_identifier(part: Part, kind: str, source: Source, type_code: str) -> dict[str, Any] | None:
    """EI (an order number and the like) as Identifier; its authority lies in components 2 to 4."""
    if not part.raw or not (value := part.get(1).strip()):
        return None
    return identifier(value, entity_system(part, kind, source), type_code)


def entity_system(part: Part, kind: str, source: Source) -> str:
    """The system of an EI."""
    if len(part) == 1:
        return source.system(kind)
    namespace, universal = part.get(2), part.get(3)
    for name in (namespace, universal):
        if name and (system := source.identifier_systems.get(name)):
            return system
    if universal and _OID.fullmatch(universal):
        return f"urn:oid:{universal}"
    name = namespace or universal
    return f"{source.system(kind)}:{quote(name, safe='')}" if name else source.system(kind)


#: Where XPN (by the place of its use, 7) and XCN (10) have the period and the professional suffix.
_NAME_ENDS = {7: ((10, 12, 13), 14), 10: ((17, 19, 20), 21)}


def human_name(part: Part, first: int = 1, use_at: int = 7, representation_at: int = 8) -> dict[str, Any] | None:
    """XPN (or XCN from ``first`` = 2) as HumanName; None when no name is there.

    A Chinese name that stands whole in the family component is kept as ``text`` alone: where the family name ends
    would be a guess (欧阳). Its text has no blanks; other names are given names before family name.
    """
    if not part:
        return None
    family = part.get(first)
    given = [name for at in (first + 1, first + 2) if (name := part.get(at))]
    if not family and not given:
        return None
    period_at, suffix_at = _NAME_ENDS.get(use_at, ((99, 99, 99), 99))
    suffix = [name for at in (first + 3, first + 5, suffix_at) if (name := part.get(at))]
    prefix = part.get(first + 4)
    chinese = _CJK.search(family or given[0]) is not None
    made: dict[str, Any] = {}
    if representation := tables.NAME_REPRESENTATION.get(part.get(representation_at)):
        made["extension"] = [{"url": _EN_REPRESENTATION, "valueCode": representation}]
    if use := tables.NAME_USE.get(part.get(use_at).upper()):
        made["use"] = use
    if chinese:
        made["text"] = family + "".join(given)
    else:
        made["text"] = " ".join(piece for piece in (prefix, *given, family, *suffix) if piece)
    if family and (given or not chinese):
        made["family"] = family
    if given:
        made["given"] = given
    if prefix:
        made["prefix"] = [prefix]
    if suffix:
        made["suffix"] = suffix
    if len(part) >= period_at[0] and (valid := _period_at(part, *period_at)):
        made["period"] = valid
    return made


def _period_at(part: Part, both: int, start: int, end: int) -> dict[str, str]:
    """Two components as a Period; in older versions they are the subcomponents of one (DR)."""
    if part.get(start) or part.get(end):
        return period_of(part.get(start), part.get(end))
    return period_of(part.get(both), part.get(both, 2))


def address_from(part: Part) -> dict[str, Any] | None:
    """XAD as Address; None when empty."""
    kind = part.get(7).upper()
    lines = [line for line in (part.get(1), part.get(1, 2), part.get(1, 3), part.get(2), part.get(19)) if line]
    made: dict[str, Any] = {"use": tables.ADDRESS_USE.get(kind), "type": tables.ADDRESS_TYPE.get(kind), "line": lines,
                            "city": part.get(3), "district": part.get(9), "state": part.get(4),
                            "postalCode": part.get(5), "country": part.get(6)}
    if len(part) > 11:
        made["period"] = _period_at(part, 12, 13, 14)
    made = {key: value for key, value in made.items() if value}
    return made if made.keys() - {"use", "type", "period"} else None


def address_text(part: Part) -> str:
    """XAD in one line, as its country writes it: a Chinese address goes from the province to the house."""
    made = address_from(part) or {}
    lines, places = made.get("line", []), [made[key] for key in ("state", "city", "district") if key in made]
    if any(_CJK.search(text) for text in [*lines, *places]):
        return "".join([*places, *lines])
    ends = [made[key] for key in ("city", "district", "state", "postalCode", "country") if key in made]
    return ", ".join([*lines, *ends])


def contact_from(part: Part, default_use: str = "") -> dict[str, Any] | None:
    """XTN as ContactPoint; None when it holds no number or address."""
    equipment = part.get(3).upper()
    electronic = equipment in ("INTERNET", "X.400") or (not equipment and part.get(4))
    value = part.get(4) if electronic else ""
    if not value:
        value = part.get(12) or _composed_number(part) or part.get(1)
    if not value:
        return None
    system = tables.TELECOM_SYSTEM.get(equipment, "email" if electronic else "phone")
    use = "mobile" if equipment == "CP" else tables.TELECOM_USE.get(part.get(2).upper(), "")
    use = use or ("" if part.get(2) else default_use)
    made: dict[str, Any] = {"system": system, "value": value, **({"use": use} if use else {})}
    if len(part) > 12:
        rank = part.get(18)
        if rank.isascii() and rank.isdigit() and int(rank[:9]) > 0:
            made["rank"] = int(rank[:9])
        if valid := period_of(part.get(13), part.get(14)):
            made["period"] = valid
    return made


def _composed_number(part: Part) -> str:
    country, area, local, extension = (part.get(at) for at in (5, 6, 7, 8))
    if not local:
        return ""
    pieces = [f"+{country.lstrip('+')}" if country else "", area, local, f"X{extension}" if extension else ""]
    return " ".join(piece for piece in pieces if piece)


def decimal(text: str) -> Decimal | None:
    """NM as an exact decimal, its precision kept (1.50 stays 1.50); None when it is not a number."""
    text = text.strip()
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


def unit_parts(units: Part, source: Source) -> dict[str, str]:
    """CWE (OBX-6) as ``unit`` in the sender's text and, where it is sure, ``system`` and ``code`` in UCUM.

    Habit ``unit_component`` = 2: component 1 is a local number, the text is in component 2. An unescaped power of ten
    (``10^9/L``) that the component separator tore apart is put together again.
    """
    if not units:
        return {}
    at = 2 if source.habits.get("unit_component") == 2 and units.get(2) else 1
    text = units.get(at)
    code: str | None
    if _POWER_HEAD.fullmatch(text) and _POWER_TAIL.fullmatch(units.get(at + 1)):
        text = f"{text}{units.delimiter}{units.get(at + 1)}"
        code = ucum(text)
    elif at == 2:
        code = ucum(text)
    else:
        first, second = text, units.get(2)
        text = second or first
        if first and system_uri(units.get(3)) == UCUM:
            code = first if is_ucum(first) else ucum(first)
        else:
            code = (ucum(first) if first else None) or (ucum(second) if second else None)
    if not text:
        return {}
    return {"unit": text, "system": UCUM, "code": code} if code else {"unit": text}


def quantity(value: Decimal, units: dict[str, str], comparator: str = "") -> dict[str, Any]:
    """A Quantity; the keys in FHIR's order."""
    return {"value": value, **({"comparator": comparator} if comparator else {}), **units}


def is_url(text: str) -> bool:
    """Whether a pointer can stand as FHIR url."""
    return _URL.fullmatch(text) is not None
