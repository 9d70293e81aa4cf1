"""The Patient as patient administration tells it, on top of what is stored of it.

A field that a message does not send changes nothing, and ``""`` deletes (v2.5.1 2.5.3). A field that is sent replaces
all that it said before, with all its repetitions; of identifiers, those of the same system.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.hl7v2 import merge
from gateway.hl7v2.builder import Builder, Reference
from gateway.hl7v2.message import Segment
from gateway.hl7v2.people import practitioner
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.source import Resource

#: PID fields and the elements that they are: ``""`` deletes these.
_ELEMENTS = {5: ("name",), 7: ("birthDate", "_birthDate"), 8: ("gender",), 11: ("address",), 15: ("communication",),
             16: ("maritalStatus",), 24: ("multipleBirthBoolean",), 25: ("multipleBirthInteger",),
             29: ("deceasedDateTime",), 30: ("deceasedBoolean",)}
_EXTENSIONS = {6: "patient-mothersMaidenName", 17: "patient-religion", 23: "patient-birthPlace",
               26: "patient-citizenship", 28: "patient-nationality", 35: "patient-animal"}
_DEFINITIONS = "http://hl7.org/fhir/StructureDefinition/"
#: Elements of which one form excludes the others.
_CHOICES = (("deceasedBoolean", "deceasedDateTime"), ("multipleBirthBoolean", "multipleBirthInteger"))


def complete(made: Resource, pd1: Segment | None, carers: list[Reference], event: str, builder: Builder) -> None:
    """What PD1, ``carers`` (ROL behind PID) and the event add to PID's Patient."""
    practices: list[Reference] = []
    if pd1 is not None:
        named = [person for part in pd1.repetitions(4) if (person := practitioner(part, builder))]
        practices = [place for at in range(1, len(pd1.repetitions(3)) + 1) if (place := _practice(pd1, at, builder))]
        carers = [*named, *(one for one in carers if one not in named)]
        if worship := pd1.text(14).strip():
            made.setdefault("extension", []).append({"url": f"{_DEFINITIONS}patient-congregation",
                                                     "valueString": worship})
    if practices or carers:
        made["generalPractitioner"] = [*practices, *carers]
    if event == "A29":
        made["active"] = False


def _practice(pd1: Segment, at: int, builder: Builder) -> dict[str, Any] | None:
    """PD1-3 (XON): the patient's primary care facility."""
    name, number = pd1.get(3, 1, repetition=at), pd1.get(3, 10, repetition=at) or pd1.get(3, 3, repetition=at)
    if not name and not number:
        return None
    made = builder.resource("Organization", f"facility|{number or name}")
    if number:
        made["identifier"] = [{"system": builder.source.system("facility"), "value": number}]
    made["name"] = name or number
    return {**builder.add(made, builder.sent_at, "skip"), "display": name or number}


def onto(pid: Segment, event: str, edits: list[merge.Edit]) -> Callable[[Resource, Resource, bool], Resource]:
    """How this message changes the stored Patient, and its links."""
    nulls = [field for field in range(5, min(pid.size, 40)) if pid.is_null(field)]
    homes, offices = bool(pid.raw_field(13) or pid.raw_field(40)), bool(pid.raw_field(14))

    def change(stored: Resource, sent: Resource, late: bool) -> Resource:
        base, top = (sent, stored) if late else (stored, sent)
        made = {**base, **top}
        extension = [one for one in _by_url(base, top) if one["url"] != merge.LINK_ENDED] + merge.ends_of(stored)
        for name, merged in (("identifier", _identifiers(base, top)), ("extension", extension)):
            if merged:
                made[name] = merged
            else:
                made.pop(name, None)
        if not late:
            _telecom(made, stored, sent, homes, offices)
            _clear(made, sent, nulls)
        for choice in _CHOICES:
            if len(said := [name for name in choice if name in made]) > 1:
                kept = next((name for name in choice if name in top), said[0])
                for name in said:
                    if name != kept:
                        del made[name]
        if made.get("birthDate") != base.get("birthDate") and "_birthDate" not in top:
            made.pop("_birthDate", None)
        for name in ("link", "active"):  # of the message's own they are in ``edits`` and ``event``
            made.pop(name, None)
            if name in stored:
                made[name] = stored[name]
        if event == "A29" and not late:
            made["active"] = False
        elif event == "A28" and not late and not any(k.get("type") == "replaced-by" for k in made.get("link", ())):
            made.pop("active", None)
        return merge.apply(made, edits)

    return change


def _identifiers(base: Resource, top: Resource) -> list[dict[str, Any]]:
    """Those of ``top``, and behind them those of ``base`` whose systems it does not tell; ``use`` is not theirs to
    tell: what a merge marked as old stays so."""
    told = {one.get("system") for one in top.get("identifier", ())}
    uses = {(one.get("system"), one.get("value")): one["use"] for one in base.get("identifier", ()) if "use" in one}
    said = [{"use": uses[key], **one} if (key := (one.get("system"), one.get("value"))) in uses else one
            for one in top.get("identifier", ())]
    return [*said, *(one for one in base.get("identifier", ()) if one.get("system") not in told)]


def _by_url(base: Resource, top: Resource) -> list[dict[str, Any]]:
    told = {one["url"] for one in top.get("extension", ())}
    return [*top.get("extension", ()), *(one for one in base.get("extension", ()) if one["url"] not in told)]


def _telecom(made: Resource, stored: Resource, sent: Resource, homes: bool, offices: bool) -> None:
    """PID-13 and 40 replace what is not of work, PID-14 what is."""
    kept = [one for one in stored.get("telecom", ()) if not (offices if one.get("use") == "work" else homes)]
    both = [*sent.get("telecom", ()), *(one for one in kept if one not in sent.get("telecom", ()))]
    made["telecom"] = sorted(both, key=lambda one: one.get("use") == "work")
    if not made["telecom"]:
        del made["telecom"]


def _clear(made: Resource, sent: Resource, nulls: list[int]) -> None:
    for field in nulls:
        for name in _ELEMENTS.get(field, ()):
            if name not in sent:
                made.pop(name, None)
        if url := _EXTENSIONS.get(field):
            made["extension"] = [one for one in made.get("extension", ()) if one["url"] != _DEFINITIONS + url]
            if not made["extension"]:
                del made["extension"]
        if field == 19:
            told = sent.get("identifier", ())
            made["identifier"] = [one for one in made["identifier"] if one in told or not (
                one.get("system") == NATIONAL_ID_SYSTEM or one.get("system", "").endswith(":social"))]
