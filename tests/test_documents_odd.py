"""MDM and SIU with odd content in any field: refused in words or valid R4, and twice the same."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_source import make_source, segment

from gateway import hl7v2
from gateway.errors import Category, GatewayError
from gateway.fhir import check
from gateway.source import Conversion, Resource

_ATOM = st.sampled_from([
    "", "1", "0", "-3", "2.5", "王", "2024", "20240102", "20240102030405", "20231299", '""', "A^B^L", "a&b&c", "~",
    "1~2^3", "\\F\\", "\\X20\\", "\\.br\\", "^文字", "^^L", "^^^20240105090000^20240105093000", "^^^20240105^2023",
    "^^30^2024010509", "S^^", "min", "分钟", "s", "h", "Booked", "cancelled", "D", "W", "X", "AU", "CA", "OB", "V",
    "R", "DS", "CHECKUP", "Tentative", "&1.2.3&ISO", "http://x y", "https://x/y", "\u3000", "^\u00a0",
    "AP^^Base64^AAAA", "^AP^pdf^Base64^JVBERi0=", "^TEXT^^A^x", "1.2.840.113619.2", "D1^张^三~^李", "^张"])
_KINDS = st.sampled_from(["TX", "FT", "ST", "NM", "SN", "CE", "ED", "RP", "HD", "DT", "ZZ", ""])


@st.composite
def _segment(draw: st.DrawFn, name: str, usual: dict[int, str], upto: int) -> str:
    """A segment of its usual fields, some left out or odd, and a few others."""
    odd = draw(st.dictionaries(st.integers(1, upto), _ATOM, max_size=6))
    kept = {at: value for at, value in usual.items() if draw(st.integers(0, 5))}
    return segment(name, {**odd, **kept} or {1: ""})


@st.composite
def _mdm(draw: st.DrawFn) -> bytes:
    event = draw(st.sampled_from([f"T{n:02}" for n in range(1, 12)]))
    lines = [f"MSH|^~\\&|A|B|C|D|20240101||MDM^{event}|1|P|2.5", draw(_segment("PID", {3: "P1", 5: "王^一"}, 39))]
    for _ in range(draw(st.integers(0, 2))):
        lines.append(draw(_segment("ORC", {1: "NW", 2: "PL"}, 20)))
        lines.append(draw(_segment("OBR", {2: "PL", 3: "F", 4: "CT^胸部"}, 45)))
    for _ in range(draw(st.integers(1, 2))):
        lines.append(draw(_segment("TXA", {2: "DS", 12: "D1"}, 26)))
        for _ in range(draw(st.integers(0, 3))):
            lines.append(draw(_segment("OBX", {2: draw(_KINDS), 3: "X^正文", 5: draw(_ATOM), 11: "F"}, 20)))
            if draw(st.booleans()):
                lines.append(draw(_segment("NTE", {3: "备注"}, 9)))
    lines.insert(draw(st.integers(1, len(lines))), draw(_segment("PV1", {2: "I", 19: "V1"}, 50)))
    return "\r".join(lines).encode()


@st.composite
def _siu(draw: st.DrawFn) -> bytes:
    event = draw(st.sampled_from([f"S{n}" for n in (*range(12, 23), 26)]))
    lines = [f"MSH|^~\\&|A|B|C|D|20240101||SIU^{event}|1|P|2.5",
             draw(_segment("SCH", {2: "B1", 11: "^^^20240105090000^20240105093000"}, 28))]
    for name, usual, upto in (("TQ1", {7: "20240105090000"}, 12), ("NTE", {3: "空腹"}, 9), ("PID", {3: "P1"}, 39),
                              ("PV1", {2: "O", 19: "V1"}, 50), ("DG1", {3: "R91"}, 20), ("OBX", {3: "W", 5: "1"}, 20),
                              ("RGS", {1: "1"}, 3), ("AIS", {3: "CT^胸部", 4: "20240105090000"}, 12),
                              ("AIG", {3: "CT2^CT"}, 14), ("AIL", {3: "CT^2"}, 12), ("AIP", {3: "D7^王"}, 12),
                              ("NTE", {3: "x"}, 9), ("AIS", {3: "MR"}, 12), ("ZZZ", {1: "x"}, 4)):
        if draw(st.booleans()):
            lines.append(draw(_segment(name, usual, upto)))
    return "\r".join(lines).encode()


#: What may be stored when a message comes that amends: what another message made, or what a client wrote.
_STORED = st.sampled_from([None, {"status": "current"},
                           {"status": "superseded", "content": [{"attachment": {"url": "x"}}]}])


def _judge(raw: bytes, stored: Resource | None) -> None:
    def convert() -> Conversion:
        return hl7v2.convert(hl7v2.parse(raw), make_source())

    try:
        made = convert()
    except GatewayError as refusal:
        assert refusal.category in (Category.INVALID, Category.MALFORMED)
        return
    again = convert()
    assert (again.changes, again.documents, again.remarks) == (made.changes, made.documents, made.remarks)
    ids = [(c.resource["resourceType"], c.resource["id"]) for c in made.changes]
    ids += [(a.resource_type, a.id) for a in made.amendments]
    assert len(ids) == len(set(ids))
    resources = [change.resource for change in made.changes]
    for amendment in made.amendments:
        resources += [one for one in (amendment.change(None),) if one]
    for one in resources:
        check.require_valid(one, profile=True)
        assert not _empty(one), one
    for amendment in made.amendments:
        if stored and amendment.resource_type == "DocumentReference":
            amendment.change({"resourceType": "DocumentReference", "id": amendment.id, **stored})
    named = {c.resource["id"] for c in made.changes if c.resource["resourceType"] == "Binary"}
    assert named == {document.id for document in made.documents}


def _empty(node: object) -> bool:
    if isinstance(node, dict):
        return not node or any(map(_empty, node.values()))
    if isinstance(node, list):
        return not node or any(map(_empty, node))
    return node == "" or node is None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_mdm(), _STORED)
def test_no_document_trips_the_conversion(raw: bytes, stored: Resource | None) -> None:
    """MDM."""
    _judge(raw, stored)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_siu())
def test_no_appointment_trips_the_conversion(raw: bytes) -> None:
    """SIU."""
    _judge(raw, None)
