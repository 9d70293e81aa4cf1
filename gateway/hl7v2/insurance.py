"""IN1 as Coverage: what recognition needs of an insurance is its scheme (Coverage.type)."""

from __future__ import annotations

from typing import Any

from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.datatypes import code_text, decimal, human_name, identifier, identifier_from, identifier_system
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import told_time
from gateway.source import Resource
from gateway.terminology import BASE

#: Schemes as a region's settlement rules name them (``settlement.tsv``, column schemes).
SCHEMES = f"{BASE}/CodeSystem/recognition-scheme"
_RELATIONSHIP = "http://terminology.hl7.org/CodeSystem/subscriber-relationship"
_COST = "http://terminology.hl7.org/CodeSystem/coverage-copay-type"
_CLASS = "http://terminology.hl7.org/CodeSystem/coverage-class"
#: Table 0063 → subscriber-relationship, where both have it.
_RELATIONSHIPS = {"SEL": "self", "SPO": "spouse", "CHD": "child", "PAR": "parent", "OTH": "other", "NCH": "child",
                  "SCH": "child", "DOM": "common"}


def coverages_from(segments: list[Segment], patient: Reference, key: str, builder: Builder,
                   ) -> tuple[list[Reference], str]:
    """The patient's insurances in the sender's order, and the scheme of the first that names one.

    IN1-15 (plan type) is the scheme, else IN1-2 (plan); the manifest's table for the place may name the region's code.
    """
    references: list[Reference] = []
    scheme = ""
    for at, in1 in enumerate(segments, 1):
        kind = _scheme(in1, 15, builder) or _scheme(in1, 2, builder)
        if not kind:
            continue
        references.append(_coverage(in1, at, kind, patient, key, builder))
        if not scheme:
            scheme = next((coding["code"] for coding in kind.get("coding", ())), code_text(kind.get("text", "")))
    return references, scheme


def _scheme(in1: Segment, at: int, builder: Builder) -> dict[str, Any]:
    """A field as Coverage.type; the region's code before the hospital's own, where the manifest's table gives it."""
    kind = builder.coded(in1, at)
    own = code_text(in1.get(at))
    if own and (scheme := builder.source.table(f"IN1-{at}", own)) != own:
        kind.setdefault("coding", []).insert(0, {"system": SCHEMES, "code": scheme})
    return kind


def _coverage(in1: Segment, at: int, kind: dict[str, Any], patient: Reference, key: str, builder: Builder) -> Reference:
    """One IN1; its id is the patient's plan, with the policy's number where there is one."""
    policy = in1.get(36) or in1.get(49)
    made = builder.resource("Coverage", f"{key}|{in1.get(2) or in1.get(15) or kind.get('text', '')}|{policy}")
    numbers = [identifier(policy, builder.source.system("policy"), "")] if policy else []
    numbers += [number for in2 in _following(in1, builder) for number in _members(in2, builder)]
    if numbers:
        made["identifier"] = numbers
    made["status"] = "active"
    made["type"] = kind
    _who_is_insured(made, in1, patient, builder)
    made["beneficiary"] = {**patient}
    if relationship := _relationship(in1, builder):
        made["relationship"] = relationship
    start, end = told_time(in1, 12, builder), told_time(in1, 13, builder)
    if start and end and not builder.in_order(in1, 12, 13):
        end = None
    if period := {name: value for name, value in (("start", start), ("end", end)) if value}:
        made["period"] = period
    made["payor"] = [_payor(in1, kind, builder)]
    classes = (("plan", in1.get(2), in1.get(2, 2)), ("group", in1.get(8), in1.get(9)))
    if said := [{"type": {"coding": [{"system": _CLASS, "code": code}]}, "value": value,
                 **({"name": name} if name else {})} for code, value, name in classes if value]:
        made["class"] = said
    made["order"] = at
    if deductible := money(in1, 37):
        made["costToBeneficiary"] = [{"type": {"coding": [{"system": _COST, "code": "deductible"}]},
                                      "valueMoney": deductible}]
    return builder.add(made, builder.sent_at, "skip")


def _following(in1: Segment, builder: Builder) -> list[Segment]:
    """The IN2 behind an IN1."""
    segments = builder.message.segments
    at = next((n for n, segment in enumerate(segments) if segment is in1), len(segments))
    found: list[Segment] = []
    for segment in segments[at + 1:]:
        if segment.name == "IN2":
            found.append(segment)
        elif segment.name not in ("IN3", "AUT", "ROL"):
            break
    return found


def _members(in2: Segment, builder: Builder) -> list[dict[str, Any]]:
    """The numbers under which an insurance knows the patient: IN2-61 (member), IN2-6 (Medicare), IN2-8 (Medicaid)."""
    source = builder.source
    found = [number for part in in2.repetitions(61) if (number := identifier_from(part, "member", source, "MB"))]
    found += [identifier(value, source.system(kind), code) for at, kind, code in (
        (6, "medicare", "MC"), (8, "medicaid", "MA")) if (value := in2.get(at).strip())]
    return found


def money(segment: Segment, field: int) -> dict[str, Any]:
    """CP (price&currency; some write price^currency) as Money; empty without a number."""
    amount = decimal(segment.get(field))
    if amount is None:
        return {}
    currency = (segment.get(field, 1, 2) or segment.get(field, 2)).upper()
    known = len(currency) == 3 and currency.isascii() and currency.isalpha()
    return {"value": amount, **({"currency": currency} if known else {})}


def _who_is_insured(made: Resource, in1: Segment, patient: Reference, builder: Builder) -> None:
    """Whose insurance it is (IN1-16, IN1-17, IN1-49) and the company that has the contract (IN1-11); others than the
    patient by name alone, since nothing else is asked of them."""
    if number := in1.get(49):
        made["subscriberId"] = number
    if _RELATIONSHIPS.get(builder.source.table("IN1-17", in1.get(17)).upper()) == "self":
        made["subscriber"] = {**patient}
    elif name := human_name(in1.first(16)):
        made["subscriber"] = {"display": name["text"]}
    if holder := in1.get(11) or in1.get(11, 3):
        made["policyHolder"] = {"display": holder}


def _relationship(in1: Segment, builder: Builder) -> dict[str, Any]:
    concept = builder.coded(in1, 17, "0063")
    code = _RELATIONSHIPS.get(builder.source.table("IN1-17", in1.get(17)).upper())
    if code:
        concept.setdefault("coding", []).insert(0, {"system": _RELATIONSHIP, "code": code})
    return concept


def _payor(in1: Segment, kind: dict[str, Any], builder: Builder) -> Reference:
    """IN1-3 and IN1-4 as Organization; the plan's name where no company is named (``payor`` is required)."""
    company, name = in1.first(3), in1.get(4)
    number = identifier_from(company, "insurer", builder.source)
    if number is None and not name:
        return {"display": kind.get("text") or kind["coding"][0]["code"]}
    system = identifier_system(company.part(4), "insurer", builder.source)
    made = builder.resource("Organization", f"insurer|{system}|{company.get(1)}" if number else f"insurer|{name}")
    if number:
        made["identifier"] = [number]
    if name:
        made["name"] = name
    reference = builder.add(made, builder.sent_at, "skip")
    return {**reference, "display": name} if name else reference
