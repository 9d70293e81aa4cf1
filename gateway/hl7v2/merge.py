"""Which Patients a hospital says are one: merges (A40, A47 and the older ones), links (A24) and their end (A37).

Both Patients name each other in ``Patient.link``: who is merged is inactive and ``replaced-by`` the survivor, who
``replaces`` it; A24 says ``seealso`` on both. `gateway.identity` makes the person of these links. Each link holds the
time of the message that made it, and where a link went each Patient keeps the time at which it did: so of two messages
about one pair the newer counts, in whatever order they come. Nothing else stays behind. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.identity import is_national_system, national_keys
from gateway.source import Resource
from gateway.terminology import BASE

LINK_SINCE = f"{BASE}/StructureDefinition/patient-link-since"
LINK_ENDED = f"{BASE}/StructureDefinition/patient-link-ended"
#: Type of the link on the other side.
OPPOSITE = {"replaces": "replaced-by", "replaced-by": "replaces", "seealso": "seealso", "": ""}


class Edit(NamedTuple):
    """What a message says of one Patient and another: a type of link, or "" where they are linked no more."""

    other: str  # id of the other Patient
    kind: str
    since: str  # instant, "" when the message has no time
    place: str = "PID-3"


class Links:
    """The edits of a message, by Patient; an edit is of both sides."""

    def __init__(self) -> None:
        self._edits: dict[str, list[Edit]] = {}

    def say(self, patient: str, other: str, kind: str, since: str, place: str) -> None:
        """``patient`` gets a link of this type to ``other``, and the other one of the opposite type."""
        self._edits.setdefault(patient, []).append(Edit(other, kind, since, place))
        self._edits.setdefault(other, []).append(Edit(patient, OPPOSITE[kind], since, place))

    def of(self, patient: str) -> list[Edit]:
        """What is said of a Patient, in the message's order."""
        return self._edits.get(patient, [])


def apply(patient: Resource, edits: list[Edit], known: bool = True, survivor: Resource | None = None) -> Resource:
    """The Patient with the edits made; ``known``: it was stored, so that a link can be missed (NOT_FOUND).

    ``survivor``: the Patient that it is merged into, as the message tells it.
    """
    if not edits:
        return patient
    links: list[dict[str, Any]] = list(patient.get("link", ()))
    ended = _ended(patient)
    for edit in edits:
        at = next((n for n, link in enumerate(links) if _other(link) == edit.other), None)
        said = _since(links[at]) if at is not None else ended.get(edit.other, "")
        if edit.since and said > edit.since:
            continue  # what is stored of the two was said later
        if at is None and not edit.kind and known and not said:
            raise GatewayError(Category.NOT_FOUND, "these two patients are not linked to each other, so that there "
                               "is nothing to undo; name the two numbers that were merged or linked", edit.place)
        if at is not None:
            if edit.since or links[at].get("type") != edit.kind:
                links[at:at + 1] = [_link(edit)] if edit.kind else []
        elif edit.kind:
            links.append(_link(edit))
        ended.pop(edit.other, None)
        if edit.since and not edit.kind:
            ended[edit.other] = edit.since
    made = {name: value for name, value in _with_ends(patient, ended).items() if name != "link"}
    if any(link.get("type") == "replaced-by" for link in links):
        made["active"] = False
        if survivor and (number := national_keys(survivor)) and national_keys(made) not in ([], number):
            made["identifier"] = [{"use": "old", **one} if _national(one) else one for one in made["identifier"]]
    elif made.get("active") is False and links != patient.get("link", []):
        del made["active"]
        made["identifier"] = [{name: value for name, value in one.items() if name != "use"} if _national(one)
                              and one.get("use") == "old" else one for one in made.get("identifier", ())]
    if links:
        made["link"] = links
    return made


def _link(edit: Edit) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if edit.since:
        made["extension"] = [{"url": LINK_SINCE, "valueInstant": edit.since}]
    return {**made, "other": {"reference": f"Patient/{edit.other}"}, "type": edit.kind}


def ends_of(patient: Resource) -> list[dict[str, Any]]:
    """The extensions that say which links of the Patient have ended, and when."""
    return [one for one in patient.get("extension", ()) if one.get("url") == LINK_ENDED]


def _ended(patient: Resource) -> dict[str, str]:
    """Other Patient → when its link to this one was undone; an extension that does not say both says nothing."""
    found = {}
    for one in ends_of(patient):
        parts = {part.get("url"): part for part in one.get("extension", ())}
        other = _other({"other": parts.get("other", {}).get("valueReference")})
        if other and (since := parts.get("since", {}).get("valueInstant")):
            found[other] = str(since)
    return found


def _with_ends(patient: Resource, ended: dict[str, str]) -> Resource:
    extension = [one for one in patient.get("extension", ()) if one.get("url") != LINK_ENDED]
    for other, since in ended.items():
        parts = [{"url": "other", "valueReference": {"reference": f"Patient/{other}"}},
                 {"url": "since", "valueInstant": since}]
        extension.append({"url": LINK_ENDED, "extension": parts})
    made = {**patient, "extension": extension}
    if not extension:
        del made["extension"]
    return made


def _national(identifier: dict[str, Any]) -> bool:
    return is_national_system(identifier.get("system", ""))


def _other(link: dict[str, Any]) -> str:
    reference: str = (link.get("other") or {}).get("reference", "")
    return reference.removeprefix("Patient/")


def _since(link: dict[str, Any]) -> str:
    return next((str(e.get("valueInstant", "")) for e in link.get("extension", ()) if e.get("url") == LINK_SINCE), "")
