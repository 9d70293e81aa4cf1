"""OBX-5 to OBX-8: the value in every type that the guide settles, its unit, reference range and interpretation.

A value that does not fit its declared type (NM with text, an impossible date, SN without a number) stays what the
hospital sent: a string. Nothing here refuses a result but an ED whose Base64 is broken.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.datatypes import codeable, decimal, is_url, quantity
from gateway.hl7v2.message import Part, Segment
from gateway.source import Source

_ORIGINAL_TEXT = "http://hl7.org/fhir/StructureDefinition/originalText"
VALUE_ATTACHMENT = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment"
_NUMBER = r"\d{1,20}(?:\.\d{1,20})?|\.\d{1,20}"
_COMPARED = re.compile(rf"(<=|>=|=<|=>|[<>≤≥＜＞])\s*([+-]?(?:{_NUMBER}))", re.ASCII)
_COMPARATORS = {"<": "<", "＜": "<", "<=": "<=", "=<": "<=", "≤": "<=", ">": ">", "＞": ">", ">=": ">=", "=>": ">=",
                "≥": ">="}
#: An FHIR element of value[x] and its value, such as ("valueString", "阴性").
Value = tuple[str, Any]


def values_of(obx: Segment, units: dict[str, str], source: Source) -> list[Value]:
    """The values of OBX-5, one for each repetition, with the units of OBX-6; none when it is absent or null.

    TX and FT repetitions are the lines of one text (v2.5.1 2.A.78), and NA repetitions the rows of one array.
    """
    if obx.raw_field(2) == "NM" and (text := obx.plain(5)) and (number := _number(text, units)):
        return [number]  # what nearly all results are
    kind = obx.get(2).upper()
    parts = obx.repetitions(5)
    if not parts:
        return []
    if kind in ("TX", "FT"):
        lines = "\n".join(part.text for part in parts)
        return [("valueString", lines)] if lines.strip() else []
    if kind == "NA":
        return [_sampled(parts, units)]
    read = _READERS.get(kind, _string)
    return [value for part in parts if (value := read(part, obx, units, source)
                                              or _string(part, obx, units, source))]


def _string(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    text = part.text
    if source.habits.get("st_numbers") and obx.get(2).upper() == "ST" \
            and units and (value := _number(text, units)):
        return value
    return ("valueString", text) if text.strip() else None


def _number(text: str, units: dict[str, str]) -> Value | None:
    """A Quantity for ``7.48`` and ``<0.01``, None for anything else."""
    text = text.strip()
    if (value := decimal(text)) is not None:
        return "valueQuantity", quantity(value, units)
    if match := _COMPARED.fullmatch(text):
        return "valueQuantity", quantity(Decimal(match[2]), units, _COMPARATORS[match[1]])
    return None


def _numeric(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    return _number(part.text, units)


def _structured(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """SN: ``>^100``, ``^10^-^20``, ``^1^:^128``, ``^2^+`` (datatypes SN[Quantity], SN[Range], SN[Ratio])."""
    comparator, separator = part.get(1).strip(), part.get(3).strip()
    low, high = decimal(part.get(2)), decimal(part.get(4))
    pieces = [piece for at in (1, 2, 3, 4) if (piece := part.get(at))]
    as_text: Value = ("valueString", " ".join([*pieces, units["unit"]] if units else pieces))
    if low is None or comparator not in ("", "=", *_COMPARATORS) or separator == "+":
        return as_text if pieces else None
    original = [{"url": _ORIGINAL_TEXT, "valueString": " ".join(pieces)}]
    sign = _COMPARATORS.get(comparator, "")
    if separator in (":", "/") and high is not None:
        return "valueRatio", {"extension": original, "numerator": quantity(low, units, sign),
                              "denominator": quantity(high, units)}
    if separator == "-" and high is not None and not sign and low <= high:
        return "valueRange", {"extension": original, "low": quantity(low, units), "high": quantity(high, units)}
    if separator or high is not None:
        return as_text
    return "valueQuantity", quantity(low, units, sign)


def _coded(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    concept = codeable(part, source, "OBX-5")
    return ("valueCodeableConcept", concept) if concept else None


def _moment(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    try:
        return "valueDateTime", timestamps.date_time(part.get(1), source.timezone, "OBX-5")
    except GatewayError:
        return None


def _clock(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    try:
        return "valueTime", timestamps.time(part.get(1), "OBX-5")
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
    return "valuePeriod", ends


def _numeric_range(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    low, high = decimal(part.get(1)), decimal(part.get(2))
    if (low is None) != (not part.get(1)) or (high is None) != (not part.get(2)) or low is high is None:
        return None
    if low is not None and high is not None and low > high:  # rng-2
        return None
    return "valueRange", {key: quantity(value, units) for key, value in (("low", low), ("high", high))
                          if value is not None}


def _sampled(parts: list[Part], units: dict[str, str]) -> Value:
    """NA as SampledData: a row for each repetition, ``E`` for an empty or non-numeric point (R4 datatypes SampledData).

    The message does not tell the time between samples, which R4 requires: it is 0, and means nothing.
    """
    rows = [[str(number) if (number := decimal(part.get(at))) is not None else "E"
             for at in range(1, len(part) + 1)] for part in parts]
    width = max(len(row) for row in rows)
    points = [point for row in rows for point in row + ["E"] * (width - len(row))]
    return "valueSampledData", {"origin": quantity(Decimal(0), units), "period": Decimal(0),
                                "dimensions": width if len(rows) > 1 else 1, "data": " ".join(points)}


def _value_range(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    return "valueString", f"{part.get(1)}-{part.get(2)}"


def _pointer(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    pointer = part.get(1)
    if not is_url(pointer):
        return None
    return "valueAttachment", {**_media(part.get(3), part.get(4)), "url": pointer}


def _encapsulated(part: Part, obx: Segment, units: dict[str, str], source: Source) -> Value | None:
    """ED as Attachment: Base64 as sent, A and Hex as Base64."""
    encoding, data = part.get(4).upper(), part.part(5).text
    if not data:
        return None
    try:
        if encoding == "BASE64":
            content = "".join(data.split())
            binascii.a2b_base64(content, strict_mode=True)
        elif encoding == "HEX":
            content = base64.b64encode(bytes.fromhex(data)).decode()
        else:
            content = base64.b64encode(data.encode()).decode()
    except (binascii.Error, ValueError) as broken:
        raise GatewayError(Category.INVALID, f"OBX-5.5 is not what OBX-5.4 says{obx.which()}; send whole "
                           "Base64 or Hex", "OBX-5", detail="data-type") from broken
    return "valueAttachment", {**_media(part.get(2), part.get(3)), "data": content}


def _media(kind: str, subtype: str) -> dict[str, str]:
    """contentType by ED.2 and ED.3, or RP.3 and RP.4; FHIR wants one wherever there is data."""
    if "/" in kind:
        return {"contentType": kind.lower()}
    if known := tables.MEDIA_TYPES.get(subtype.upper()) or tables.MEDIA_TYPES.get(kind.upper()):
        return {"contentType": known}
    main = kind.lower()
    if main in ("application", "image", "audio", "text", "video") and subtype and subtype.isascii():
        return {"contentType": f"{main}/{subtype.lower()}"}
    return {"contentType": "text/plain" if kind.upper() in ("TX", "FT", "TEXT") else "application/octet-stream"}


_Reader = Callable[[Part, Segment, dict[str, str], Source], Value | None]
_READERS: dict[str, _Reader] = {
    "NM": _numeric, "SN": _structured, "CE": _coded, "CWE": _coded, "CNE": _coded, "CF": _coded, "IS": _coded,
    "DT": _moment, "TS": _moment, "DTM": _moment, "TM": _clock, "DR": _period, "NR": _numeric_range,
    "VR": _value_range, "RP": _pointer, "ED": _encapsulated,
}


def interpretations(obx: Segment, source: Source) -> list[dict[str, Any]]:
    """OBX-8 as v3-ObservationInterpretation by way of the manifest's table; an unknown flag stays the hospital's."""
    concepts = []
    for part in obx.repetitions(8):
        sent = part.get(1)
        code = source.table("OBX-8", sent)
        if not code:
            continue
        if display := tables.INTERPRETATIONS.get(code):
            concept: dict[str, Any] = {"coding": [{"system": tables.INTERPRETATION, "code": code, "display": display}]}
            if sent != code:
                concept["text"] = sent
        else:
            concept = codeable(part, source, "OBX-8")
        if concept:
            concepts.append(concept)
    return concepts
