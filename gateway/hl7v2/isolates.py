"""Results of one report that belong together: OBX-4, and an organism with its susceptibilities (v2.8.2 7.4.2.4).

A result that holds others gets ``hasMember``. Nothing is made a group that the message does not tell as one: OBX-4
alone only keeps results apart, and its form is each sender's own (OG, v2.8.2 2A.3.51); so there must be a head.

- Dotted sub-ids: ``1.1`` and ``1.2`` belong to the one result with ``1``.
- Microbiology: the results that share an organism's OBX-4 belong to it; susceptibilities are also derived from it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gateway.errors import GatewayError
from gateway.hl7v2 import tables
from gateway.hl7v2.builder import Builder
from gateway.hl7v2.message import Segment
from gateway.source import Resource
from gateway.terminology import LOINC

#: Table 0074: sections whose results are cultures.
_CULTURES = frozenset(("MB", "MCB", "MYC"))
#: LOINC: the organism that a culture found.
_ORGANISM = frozenset((
    "600-7", "606-4", "624-7", "625-4", "626-2", "630-4", "634-6", "635-3", "6460-0", "6462-6", "6463-4", "543-9",
    "580-1", "11475-1", "41852-5"))
_SUSCEPTIBILITIES = frozenset(("S", "I", "R", "SDD", "NS", "MS", "VS", "NCL", "SYN-R", "SYN-S"))
#: A value that is itself the susceptibility.
_WORDS = _SUSCEPTIBILITIES | {"敏感", "耐药", "中介", "剂量依赖敏感"}
_NUMBERS = ("NM", "SN", "NR", "NA")

#: OBX and the Observation that it became.
Made = tuple[Segment, Resource]
#: Links that are told already: id, element, id of the other.
Related = set[tuple[str, str, str]]


def gather(results: list[Made], obr: Segment, builder: Builder, known: Related) -> None:
    """Tie the results of one report together."""
    sub_ids = [obx.text(4).strip() for obx, _ in results]
    if any("." in sub_id for sub_id in sub_ids):
        _dotted(results, sub_ids, known)
    _isolates(results, sub_ids, obr, builder, known)


def reference_to(resource: Resource) -> dict[str, Any]:
    """A reference to a resource of this message."""
    return {"reference": f"{resource['resourceType']}/{resource['id']}"}


def relate(head: Resource, member: Resource, derived: bool, known: Related) -> None:
    """``hasMember`` on one, and ``derivedFrom`` on the other where its value follows from the first's; each once."""
    for resource, name, other in ((head, "hasMember", member), *(((member, "derivedFrom", head),) if derived else ())):
        if (link := (resource["id"], name, other["id"])) not in known:
            known.add(link)
            resource.setdefault(name, []).append(reference_to(other))


def _dotted(results: list[Made], sub_ids: list[str], known: Related) -> None:
    count = Counter(sub_ids)
    heads = {sub_id: made for (_, made), sub_id in zip(results, sub_ids, strict=True) if count[sub_id] == 1}
    for (_, made), sub_id in zip(results, sub_ids, strict=True):
        above, dot, _ = sub_id.rpartition(".")
        if dot and (head := heads.get(above)) is not None:
            relate(head, made, is_susceptibility(made), known)


def _isolates(results: list[Made], sub_ids: list[str], obr: Segment, builder: Builder, known: Related) -> None:
    """An organism is told by its code; in a section of microbiology also by being the only word among susceptibilities
    that share its OBX-4. Without OBX-4 the susceptibilities behind an organism are its own."""
    heads: dict[str, Resource] = {}
    alone = _alone(results, sub_ids, obr, builder)
    for (obx, made), sub_id in zip(results, sub_ids, strict=True):
        if names_organism(obx, builder) or alone.get(sub_id) is made:
            heads[sub_id] = made
        elif (head := heads.get(sub_id)) is not None:
            derived = is_susceptibility(made)
            if sub_id or derived:
                relate(head, made, derived, known)


def _alone(results: list[Made], sub_ids: list[str], obr: Segment, builder: Builder) -> dict[str, Resource]:
    """Of each OBX-4 with susceptibilities, the one result that is neither a susceptibility nor a number."""
    if builder.source.table("OBR-24", obr.get(24)).upper() not in _CULTURES:
        return {}
    tested = {sub_id for (_, made), sub_id in zip(results, sub_ids, strict=True) if sub_id and is_susceptibility(made)}
    words: dict[str, list[Resource]] = {}
    for (obx, made), sub_id in zip(results, sub_ids, strict=True):
        if sub_id in tested and obx.get(2).upper() not in _NUMBERS and not is_susceptibility(made):
            words.setdefault(sub_id, []).append(made)
    return {sub_id: found[0] for sub_id, found in words.items() if len(found) == 1}


def names_organism(obx: Segment, builder: Builder) -> bool:
    """Whether a result is what a culture found: by LOINC, or by the manifest's ``organism_codes``."""
    try:
        known = builder.known(obx, 3)
    except GatewayError:  # a text without a name
        return False
    return known.code in builder.organism_codes or any(
        coding["code"] in _ORGANISM and coding["system"] == LOINC for coding in known.concept.get("coding", ()))


def is_susceptibility(made: Resource) -> bool:
    """Whether a result says how an organism answers to a drug: by its interpretation, or by its whole value."""
    for concept in made.get("interpretation", ()):
        for coding in concept.get("coding", ()):
            if coding.get("code") in _SUSCEPTIBILITIES and coding.get("system") == tables.INTERPRETATION:
                return True
    if (text := made.get("valueString")) is not None:
        return text.strip() in _WORDS
    return any(coding.get("code") in _WORDS for coding in made.get("valueCodeableConcept", {}).get("coding", ()))
