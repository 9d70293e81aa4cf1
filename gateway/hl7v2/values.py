"""OBX-5: the value in every type of table 0125.

A value that does not fit its declared type (NM with text, an impossible date, SN without a number) stays what the
hospital sent: a string. Nothing here refuses a result but an ED whose Base64 is broken (`enclosures`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from gateway.errors import GatewayError
from gateway.hl7v2 import timestamps
from gateway.hl7v2.datatypes import (
    address_text,
    code_text,
    codeable,
    coding_system,
    contact_from,
    decimal,
    human_name,
    quantity,
    unit_parts,
)
from gateway.hl7v2.enclosures import Enclosure, encapsulated, pointed_at
from gateway.hl7v2.message import Part, Segment
from gateway.hl7v2.numbers import compared, narrow
from gateway.hl7v2.ranges import limits_of
from gateway.source import Resource, Source

_ORIGINAL_TEXT = "http://hl7.org/fhir/StructureDefinition/originalText"
VALUE_ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment"
_CURRENCY = "urn:iso:std:iso:4217"
#: Characters of a FHIR string, less what is put around it.
MOST_TEXT = 1_000_000
#: Types whose text a manifest may say to be a number, a titre or a coded result.
_TEXTS = frozenset(("ST", "TX", "FT", ""))


class Value(NamedTuple):
    """An element of value[x] and what it holds, such as ("valueString", "阴性").

    ``sent``: the text as it was sent, where a string shows it in other words. A document is ("valueAttachment",
    Enclosure) until `enclosures.attach` has taken it over.
    """

    name: str
    content: Any
    sent: str = ""

    def put(self, made: Resource) -> Resource:
        """Write it into an Observation or a component, and give that back."""
        made[self.name] = self.content
        if self.sent:
            made[f"_{self.name}"] = {"extension": [{"url": _ORIGINAL_TEXT, "valueString": self.sent}]}
        return made


_NOTHING = Value("", None)


def values_of(obx: Segment, units: dict[str, str], source: Source, lines: Sequence[Segment] = ()) -> list[Value]:
    """The values of OBX-5, one for each repetition, with the units of OBX-6; none when it is absent or null.

    What nearly all results are, a number and nothing else, does not come here (`Builder.number`).

    TX and FT repetitions are the lines of one text (v2.5.1 2.A.78), as are ``lines``, the OBX that continue this one;
    NA and MA repetitions are the rows of one array.
    """
    kind = obx.get(2).upper()
    if lines or kind in ("TX", "FT"):
        return _text(obx, kind, units, source, lines or [obx])
    parts = obx.repetitions(5)
    if not parts:
        return []
    if kind in ("NA", "MA"):
        return [_sampled(parts, units, kind)]
    if kind == "ST" and len(parts) > 1 and (whole := _by_habit(obx.text(5), kind, units, source)):
        return [whole]  # 10~20: the tilde of a range
    read = _READERS.get(kind, _string)
    return [value for part in parts if (value := read(part, obx, units, source) or _string(part, obx, units, source))
            and value is not _NOTHING]


def _text(obx: Segment, kind: str, units: dict[str, str], source: Source, lines: Sequence[Segment]) -> list[Value]:
    text = "\n".join("\n".join(part.text for part in line.repetitions(5)) for line in lines)
    if not text.strip():
        return []
    text = text.strip("\n")  # \.ce\ before the first line ends none
    return [] if _says_nothing(text, source) else [_by_habit(text, kind, units, source) or _as_text(text)]


def _string(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    text = part.text
    if not text.strip() or _says_nothing(text, source):
        return None
    return _by_habit(text, obx.get(2).upper(), units, source) or _as_text(text)


def _as_text(text: str) -> Value:
    """A string; beyond R4's megabyte a document of plain text (datatypes.html#string)."""
    if len(text) <= MOST_TEXT:
        return Value("valueString", text)
    return Value("valueAttachment", Enclosure("text/plain; charset=utf-8", text.encode()))


def _says_nothing(text: str, source: Source) -> bool:
    """Whether the manifest's table for OBX-5 says that this text is no result (``"未做" = ""``)."""
    return bool(source.tables) and source.table("OBX-5", text.strip()) == ""


def _by_habit(text: str, kind: str, units: dict[str, str], source: Source) -> Value | None:
    """What the manifest says of texts: a coded result, a number with a unit, a titre, a range with a unit."""
    if source.tables and (coding := _coding_of(text.strip(), source)):
        return Value("valueCodeableConcept", {"coding": [coding], "text": text.strip()})
    habits = source.habits
    if not habits or kind not in _TEXTS and kind != "NM":
        return None
    if units and habits.get("st_numbers") and kind in _TEXTS and (value := _number(text, units, source)):
        return value
    if habits.get("st_titres") and (value := _titre(text)):
        return value
    if units and habits.get("st_ranges") and (limits := limits_of(text, units, habits)) and None not in limits:
        return Value("valueRange", {"extension": _original(text), "low": quantity(limits[0], units),  # type: ignore[arg-type]
                                    "high": quantity(limits[1], units)})  # type: ignore[arg-type]
    return None


def _coding_of(sent: str, source: Source) -> dict[str, str] | None:
    """The standard's coding for a result, from the manifest's table: ``SYSTEM|CODE|DISPLAY``."""
    named = source.tables.get("OBX-5")
    if not named or not sent or not (found := named.get(sent)):
        return None
    system, code, display = [*found.split("|", 2), ""][:3]
    coding = {"system": system if ":" in system else coding_system(system, source.system("table:OBX-5")), "code": code}
    return {**coding, "display": display} if display else coding


def _original(text: str) -> list[dict[str, Any]]:
    return [{"url": _ORIGINAL_TEXT, "valueString": text.strip()}]


def _number(text: str, units: dict[str, str], source: Source) -> Value | None:
    """A Quantity for ``7.48`` and ``<0.01``; with the original text where the number was written by other means."""
    found = compared(text, source.habits.get("number_comma", ""))
    if found is None:
        return None
    made = quantity(found.value, units, found.comparator)
    return Value("valueQuantity", {"extension": _original(text), **made} if found.spelled else made)


def _titre(text: str) -> Value | None:
    """``1:128`` as Ratio. Not ``<1:10``: whether the titre or the ratio is less is not said."""
    one, colon, dilution = narrow(text).partition(":")
    low, high = decimal(one), decimal(dilution)
    if not colon or low is None or not high or low <= 0 or high <= 0:
        return None
    return Value("valueRatio", {"extension": _original(text), "numerator": quantity(low, {}),
                                "denominator": quantity(high, {})})


def _numeric(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    text = part.text
    return None if text.strip() in source.tables.get("OBX-5", ()) else _number(text, units, source)


def _integer(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """SI: R4 has an integer for it; one with a unit is a quantity."""
    text = part.get(1)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    return Value("valueQuantity", quantity(Decimal(text), units)) if units else Value("valueInteger", int(text))


def _structured(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """SN: ``>^100``, ``^10^-^20``, ``^1^:^128``, ``^2^+`` (datatypes SN[Quantity], SN[Range], SN[Ratio]).

    A number in the first component (``5.6``, ``<5``) is one as if it were typed NM.
    """
    comparator, separator = narrow(part.get(1)).strip(), part.get(3).strip()
    low, high = decimal(narrow(part.get(2))), decimal(narrow(part.get(4)))
    pieces = [piece for at in (1, 2, 3, 4) if (piece := part.get(at))]
    if low is None and high is None and len(pieces) == 1:
        return _number(pieces[0], units, source)
    if not pieces or comparator not in _SN_SIGNS and comparator != "<>":
        return None  # line ends alone; 10^3: no SN at all
    as_text = Value("valueString", " ".join([*pieces, units["unit"]] if units else pieces))
    if low is None or comparator == "<>" or separator == "+":
        return as_text
    original = _original("".join(pieces))  # 1:128 and 10-20, as where it is typed ST
    sign = _SN_SIGNS[comparator]
    if separator in (":", "/") and high is not None:
        return Value("valueRatio", {"extension": original, "numerator": quantity(low, units, sign),
                                    "denominator": quantity(high, units)})
    if separator == "-" and high is not None and not sign and low <= high:
        return Value("valueRange", {"extension": original, "low": quantity(low, units), "high": quantity(high, units)})
    if separator or high is not None:
        return as_text
    return Value("valueQuantity", quantity(low, units, sign))


_SN_SIGNS = {"": "", "=": "", "<": "<", "<=": "<=", "=<": "<=", "≤": "<=", ">": ">", ">=": ">=", "=>": ">=", "≥": ">="}


def _coded(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    concept = codeable(part, source, "OBX-5")
    if not concept:
        return None
    if source.tables and (sent := code_text(part.get(1)) or str(concept.get("text", "")).strip()):
        if source.table("OBX-5", sent) == "":
            return _NOTHING
        if coding := _coding_of(sent, source):
            concept["coding"] = [coding, *(one for one in concept.get("coding", ())
                                           if (one.get("system"), one["code"]) != (coding["system"], coding["code"]))]
    return Value("valueCodeableConcept", concept)


def _moment(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    try:
        return Value("valueDateTime", timestamps.date_time(part.get(1), source.timezone, "OBX-5"))
    except GatewayError:
        return None


def _clock(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    try:
        return Value("valueTime", timestamps.time(part.get(1), "OBX-5"))
    except GatewayError:
        return None


def _period(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    try:
        ends = {key: timestamps.date_time(text, source.timezone, "OBX-5")
                for key, at in (("start", 1), ("end", 2)) if (text := part.get(at))}
    except GatewayError:
        return None
    first, last = (timestamps.as_of_us(part.get(at), source.timezone) for at in (1, 2))
    if not ends or (first is not None and last is not None and first > last):  # per-1
        return None
    return Value("valuePeriod", ends)


def _numeric_range(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    low, high = decimal(part.get(1)), decimal(part.get(2))
    if (low is None) != (not part.get(1)) or (high is None) != (not part.get(2)) or low is high is None:
        return None
    if low is not None and high is not None and low > high:  # rng-2
        return None
    return Value("valueRange", {key: quantity(value, units) for key, value in (("low", low), ("high", high))
                                if value is not None})


def _sampled(parts: list[Part], units: dict[str, str], kind: str) -> Value:
    """NA and MA as SampledData: a row for each repetition, ``E`` for an empty or non-numeric point.

    A repetition of MA is one moment of all channels, so that its width is the number of dimensions also alone. The
    message does not tell the time between samples, which R4 requires: it is 0, and means nothing.
    """
    rows = [[str(number) if (number := decimal(part.get(at))) is not None else "E"
             for at in range(1, len(part) + 1)] for part in parts]
    width = max(len(row) for row in rows)
    points = [point for row in rows for point in row + ["E"] * (width - len(row))]
    return Value("valueSampledData", {
        "origin": quantity(Decimal(0), units), "period": Decimal(0),
        "dimensions": width if len(rows) > 1 or kind == "MA" else 1, "data": " ".join(points)})


def _value_range(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """VR; one value alone is no range."""
    return Value("valueString", f"{part.get(1)}-{part.get(2)}") if part.get(1) and part.get(2) else None


def _money(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """MO, and CP with a single price: R4's Observation holds no Money; a Quantity in a currency of ISO 4217."""
    composite = obx.get(2).upper() == "CP"
    price = part.part(1) if composite else part
    amount, currency = decimal(price.get(1)), price.get(2).upper()
    if amount is None or composite and (part.get(3) or part.get(4)):
        return None
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
        return Value("valueQuantity", quantity(amount, units)) if not currency else None
    return Value("valueQuantity", {"value": amount, "unit": currency, "system": _CURRENCY, "code": currency})


def _with_unit(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """CQ: a number with its own unit, else with that of OBX-6."""
    own = unit_parts(part.part(2), source) if part.get(2) else units
    return _number(part.get(1), own, source)


def _worded(text: str, part: Part) -> Value | None:
    """A composite type in words; what was sent stands beside it."""
    sent = part.text
    return Value("valueString", text, "" if text == sent.strip() else sent) if text.strip() else None


def _person(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """XPN, PN: the name; XCN, CN: the name, without one the number."""
    first = 2 if obx.get(2).upper() in ("XCN", "CN", "PPN") else 1
    name = human_name(part, first)
    return _worded(str(name["text"]) if name else part.get(1), part)


def _address(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    return _worded(address_text(part), part)


def _contact(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    contact = contact_from(part)
    return _worded(str(contact["value"]) if contact else "", part)


def _organization(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    return _worded(part.get(1) or part.get(10) or part.get(3), part)


def _identifier(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """CX, CK, EI: the number; HD: the name, else the universal id."""
    return _worded(part.get(1) or part.get(2), part)


def _document(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    found: Enclosure | None = encapsulated(part, obx)
    return Value("valueAttachment", found) if found else None


def _pointer(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    found: Enclosure | None = pointed_at(part)
    return Value("valueAttachment", found) if found else None


_Reader = Callable[[Part, Segment, dict[str, str], Source], Value | None]
_READERS: dict[str, _Reader] = {
    "NM": _numeric, "SN": _structured, "SI": _integer, "CQ": _with_unit, "MO": _money, "CP": _money,
    **dict.fromkeys(("CE", "CWE", "CNE", "CF", "IS", "ID"), _coded),
    **dict.fromkeys(("DT", "TS", "DTM"), _moment), "TM": _clock, "DR": _period, "NR": _numeric_range,
    "VR": _value_range, "RP": _pointer, "ED": _document,
    **dict.fromkeys(("XPN", "PN", "XCN", "CN", "PPN"), _person), **dict.fromkeys(("XAD", "AD"), _address),
    **dict.fromkeys(("XTN", "TN"), _contact), "XON": _organization,
    **dict.fromkeys(("CX", "CK", "EI", "HD"), _identifier),
}
