"""Public ORU messages, and invented hostile ones, through the whole conversion."""

from __future__ import annotations

import importlib
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.fhir.check import check
from gateway.source import Conversion
from tests.support_source import make_source, segment

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"

#: What becomes of the public ORU and OUL messages: accepted, or refused with category and place, and why that is right.
EXPECTED = {
    "accepted": 46,
    "invalid OBR": 8,  # fragments of a converter's tests: a patient, and no order
    "invalid OBR-3": 3,  # built messages without any order number
    "invalid OBR-4": 3,  # outputs of a converter: orders of nothing
    "invalid PID": 2,  # snippets of OBX alone
    "invalid PID-3": 2,  # nobody's results
}


def _json(resource: dict[str, Any]) -> bytes:
    def exact(value: Any) -> Any:
        if isinstance(value, Decimal):
            return orjson.Fragment(format(value, "f"))
        raise TypeError(type(value))
    return orjson.dumps(resource, default=exact)


def _judge(conversion: Conversion) -> None:
    for change in conversion.changes:
        kind = change.resource["resourceType"]
        model = getattr(importlib.import_module(f"fhir.resources.R4B.{kind.lower()}"), kind)
        model.model_validate_json(_json(change.resource))
        assert check(change.resource, profile=True) == []


def test_public_messages_are_converted_or_refused_with_a_place() -> None:
    """Every public ORU and OUL is accepted and its resources valid, or refused for a reason; none is a fault."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    outcomes: Counter[str] = Counter()
    for path in sorted(CORPUS.rglob("*.hl7")):
        for raw in hl7v2.split(path.read_bytes()):
            try:
                if hl7v2.peek(raw).message_type[0] not in ("ORU", "OUL"):
                    continue
                conversion = hl7v2.convert(hl7v2.parse(raw), make_source())
            except GatewayError as refusal:
                if refusal.where != "MSH":
                    outcomes[f"{refusal.category.value} {refusal.where}"] += 1
                continue
            outcomes["accepted"] += 1
            _judge(conversion)
    assert outcomes == EXPECTED


def test_every_public_file_is_split_and_looked_at() -> None:
    """No public message of any type trips the reader; those without MSH are refused as such."""
    if not CORPUS.is_dir():
        pytest.skip("the folder of public messages is not beside the repository")
    read = 0
    for path in CORPUS.rglob("*.hl7"):
        for raw in hl7v2.split(path.read_bytes()):
            try:
                hl7v2.parse(raw)
            except GatewayError as refusal:
                assert refusal.category is Category.MALFORMED, path
                continue
            read += 1
    assert read > 580


_ATOM = st.sampled_from([
    "", "1", "P1", "王", "2024", "20240102030405", "x y", '""', "5^6", "A^B^L", "a&b&c", "~", "1~2^3", "\\F\\",
    "\\X41\\", "\\X0", "F", "D", "U", "X", "^文字", "^^^H^MR", "&1.2.3&ISO", "http://x", "1.2.3", "<5", ">^5", "^1^:^2",
    "99999999999999", "\u3000", "\\.br\\", "^\t", "\u00a0^\u00a0", "\\X20\\", "a\\.br\\b", "http://a b",
    "20240102^20230101", "Base64", "^AP^^Base64^AAAA", "NaN", "Infinity", "0x1", "１２"])
_KINDS = ["NM", "ST", "TX", "FT", "SN", "CE", "CWE", "CNE", "CF", "IS", "DT", "TM", "TS", "DTM", "DR", "NR", "NA", "CX",
          "ED", "RP", "EI", "VR", "HD", "ZZ", ""]


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    def fields(required: dict[int, str], upto: int) -> dict[int, str]:
        odd = draw(st.dictionaries(st.integers(1, upto), _ATOM, max_size=8))
        return {**required, **odd, **{at: draw(st.sampled_from([value, value, value, odd.get(at, value)]))
                                      for at, value in required.items()}}
    lines = ["MSH|^~\\&|A|B|C|D|20240101||ORU^R01|1|P|2.5", segment("PID", fields({3: "P1", 5: "王^一"}, 39))]
    for _ in range(draw(st.integers(1, 2))):
        lines.append(segment("OBR", fields({2: "PL", 3: "F1", 4: "CBC", 25: "F"}, 50)))
        for _ in range(draw(st.integers(0, 3))):
            obx = {2: draw(st.sampled_from(_KINDS)), 3: "WBC", 5: draw(_ATOM), 11: "F"}
            lines.append(segment("OBX", fields(obx, 25)))
            if draw(st.booleans()):
                name = draw(st.sampled_from(["NTE", "SPM", "PV1", "ORC", "ZZZ"]))
                lines.append(segment(name, fields({3: "x"}, 30)))
    return "\r".join(lines).encode()


@example(b"MSH|^~\\&|A|B|C|D|20240101||ORU^R01|1|P|2.5\rPID|||P1\rOBR||PL|F1|CBC|||||||||||||||||||||X", {})
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_messages(), st.sampled_from([{}, {"st_numbers": True, "unit_component": 2}]))
def test_no_message_crashes_the_conversion_and_what_it_makes_is_valid(raw: bytes, habits: dict[str, Any]) -> None:
    """Odd content in any field is refused with GatewayError or becomes valid R4; twice the same gives the same."""
    source = make_source(habits=habits)
    try:
        conversion = hl7v2.convert(hl7v2.parse(raw), source)
    except GatewayError as refusal:
        assert refusal.category in (Category.INVALID, Category.MALFORMED)
        return
    _judge(conversion)
    assert hl7v2.convert(hl7v2.parse(raw), source) == conversion
    ids = [(c.resource["resourceType"], c.resource["id"]) for c in conversion.changes]
    assert len(ids) == len(set(ids))
