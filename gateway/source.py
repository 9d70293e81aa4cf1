"""What a conversion may know of the hospital that a message or an image comes from. Pure: no I/O, no clock, no random.

`gateway.adapter` makes a ``Source`` from a hospital's folder; `gateway.hl7v2` and `gateway.imaging` read it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

#: Namespace of all ids: the same institution, type and business identifier always give the same id.
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, "http://huren.example/fhir")
_HASHED_IDS = hashlib.sha1(_IDS.bytes, usedforsecurity=False)
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_ORIGINAL = re.compile(r"hl7v2-([0-9a-f]{32})").fullmatch

Resource = dict[str, Any]

#: What a message tells in passing (a result's Patient, a report's order) is older than all that its own message told:
#: the copies' times (µs) lie this much before. Those of image headers, which repeat what a scanner was once told, lie
#: as much before these.
COPY = 10**16


def _digest(name: str) -> str:
    hashed = _HASHED_IDS.copy()
    hashed.update(name.encode())
    return hashed.hexdigest()


def _uuid5(name: str) -> str:
    """``str(uuid.uuid5(_IDS, name))`` (RFC 4122 4.3) in a third of the time: a message asks for thirty."""
    digest = _digest(name)
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"


def message_digest(protocol: str, raw: bytes) -> bytes:
    """What tells one message from another: equal bytes are one message, and the Binary of its original."""
    return hashlib.blake2b(raw, digest_size=16, person=protocol.encode()[:16]).digest()


def original_id(digest: bytes) -> str:
    """Id of the Binary that a message's bytes can be read as: no resource is stored of it, the inbox has it."""
    return f"hl7v2-{digest.hex()}"


def original_digest(resource_id: str) -> bytes | None:
    """The digest in an ``original_id``; None for any other id."""
    match = _ORIGINAL(resource_id)
    return bytes.fromhex(match[1]) if match else None


class Codes(Protocol):
    """A hospital's local codes as the terminology knows them (`gateway.terminology.CodeMap`)."""

    def codings(self, local: str, system: str = "") -> list[dict[str, str]]:
        """The unified coding and, where it is sure, LOINC's, for a code of a system; empty when it is unmapped."""

    def without_item(self, local: str) -> bool:
        """Whether the hospital says that the code is no item by nature: then it is not counted as unmapped."""


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A local code that no row of ``codes.csv`` maps: stored under the hospital's own code, counted and listed."""

    kind: str  # "test" (OBX-3), "order" (OBR-4) or "exam" (DICOM procedure)
    local: str
    display: str
    unit: str = ""
    where: str = ""  # the sender's path: OBX-3, OBR-4, (0008,1032)


@dataclass(slots=True)  # not frozen, which costs four times the making: every resource has one
class Change:
    """One resource to store; never changed, but replaced.

    ``onto``: what the resource becomes on top of what is stored, where something is: it gets the stored resource (a
    dict of its own), ``resource``, and whether the stored one is valid as of a later time; pure, and called again when
    somebody else was quicker. The version that it makes is valid as of the later of the two times.

    ``as_of``: microseconds since the epoch that the content is valid as of (OBR-22, else MSH-7), or None. When the
    store holds a version with a later ``as_of`` and other content, ``on_older`` decides: "refuse" raises CONFLICT for
    the whole unit, "skip" keeps ours and goes on (a lab's copy of a Patient must not undo the newer one, nor
    stop its report).
    """

    resource: Resource
    as_of: int | None = None
    on_older: str = "refuse"
    onto: Callable[[Resource, Resource, bool], Resource] | None = None


@dataclass(frozen=True, slots=True)
class OrderLine:
    """What an order message says of one order beside its ServiceRequest: for the match with earlier results, and the
    answer.

    ``control``: ORC-1 in the standard's words, "" without ORC. ``fresh``: new or changed, so that it is matched.
    ``status``: the ServiceRequest's. ``place``: its segment, such as ``OBR[2]``; ``control_place``: where ORC-1 stands.
    ``partial``: the message names the order and its new status only (ORC without OBR): there is no resource of it.
    """

    request: str  # id of the ServiceRequest
    patient: str  # id of the Patient
    number: str  # the placer's order number, else the filler's
    control: str
    status: str
    fresh: bool
    place: str
    control_place: str
    local: str = ""
    display: str = ""
    department: str = ""  # who orders
    doctor: str = ""
    scheme: str = ""  # code of the insurance scheme
    partial: bool = False
    #: the visit, also where nothing numbers it, so that no resource is stored of it
    encounter: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """A financial transaction (FT1) of an order: ``credit`` takes a charge back.

    ``number``: the order's, "" when none is named. ``filler``: where FT1-23 alone names the order, its system and value
    as FHIR searches them; ``number`` is then that value.
    """

    number: str
    credit: bool
    place: str  # FT1[2]
    patient: str
    filler: str = ""
    code: str = ""
    department: str = ""
    doctor: str = ""
    scheme: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """Bytes that a message carries (an ED in OBX-5): they go to the object store before the resources are written.

    ``id``: of the Binary that names them. It holds a digest of the bytes, so that other bytes are another Binary.
    """

    id: str
    content_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Amendment:
    """A change of a resource that the message names and does not carry: the Patient that a merge ends (MRG-1).

    ``change`` gets what earlier messages stored, a dict of its own or None, and returns what it becomes; None leaves it
    as it is. It is pure, may be called again when somebody else was quicker, and may raise NOT_FOUND. What it makes is
    written with ``changes``, after them; so a resource is either among them or amended, not both.
    """

    resource_type: str
    id: str
    change: Callable[[Resource | None], Resource | None]
    as_of: int | None = None
    on_older: str = "refuse"  # as in `Change`; "apply": changed all the same, valid as of the later of the two times


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A group of segments that replaces the group sent before (v2.5.1 2.10.4.1): all allergies of a patient (AL1).

    ``retire`` is asked, as an Amendment is, about each stored part (`Source.id_within`) of ``whole`` that the message
    ``kept`` not; it looks whose the part is, for ids of parts may look alike.
    """

    resource_type: str
    whole: str  # id of the Patient or Encounter
    kept: frozenset[str]
    retire: Callable[[Resource], Resource | None]
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """Something in the message that is kept but not as its sender may expect; ``where`` is the sender's path."""

    where: str
    sentence: str  # never a value of the message


@dataclass(slots=True)
class Conversion:
    """What a message or a study became: the resources in dependency order, and the remarks to answer and count.

    ``orders`` and ``charges`` are those of order and charge messages; empty for all others.
    """

    changes: list[Change] = field(default_factory=list)
    unmapped: list[Unmapped] = field(default_factory=list)
    orders: list[OrderLine] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    amendments: list[Amendment] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    #: ids of DiagnosticReports about images that name no study by its UID (`gateway.joining`)
    unjoined: list[str] = field(default_factory=list)
    #: ids of the DocumentReferences that this message brings or replaces, and whether they stay current beside a
    #: replacement that is older: it says that they are available, or does not speak of them (`gateway.joining`)
    replaceable: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """One hospital, as a conversion sees it."""

    institution: str  # slug; also the Organization id
    name: str
    code_system: str  # system URI of the hospital's own test and exam codes
    codes: Codes
    timezone: str = "Asia/Shanghai"
    charset: str | None = None  # HL7v2: wins over MSH-18; None trusts MSH-18, then a decode check
    dicom_charset: str | None = None  # when (0008,0005) is absent
    #: HL7 table overrides by place: {"OBX-8": {"↑": "H"}, "OBX-11": {"1": "F"}}
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: Assigning authority or identifier type as sent (PID-3.4, PID-3.5, PID-19) → system URI.
    identifier_systems: Mapping[str, str] = field(default_factory=dict)
    #: Further habits of the hospital that data can say; the keys are those of the manifest's [hl7v2] table.
    habits: Mapping[str, Any] = field(default_factory=dict)
    #: What a protocol's reader has found out about this source and need not find out again (`gateway.hl7v2.memory`).
    memory: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def id_for(self, resource_type: str, identifier: str) -> str:
        """The same identifier always gives the same id, so a resend is an update and references need no look-up."""
        return _uuid5(f"{self.institution}|{resource_type}|{identifier}")

    def id_within(self, whole: str, resource_type: str, identifier: str) -> str:
        """As ``id_for``, for a part of another resource: the parts of a whole share the first 48 bits of its id.

        Neighbours by id are then neighbours in every index by id, and a message of thirty resources writes a few pages
        of the database where it would write thirty: a UUID of version 8 (RFC 9562 5.8).
        """
        return self.ids_within(whole, resource_type, identifier)("")

    def ids_within(self, whole: str, resource_type: str, stem: str) -> Callable[[str], str]:
        """``id_within`` for many parts whose identifiers begin with ``stem``: what they share is hashed once."""
        begun = _HASHED_IDS.copy()
        begun.update(f"{self.institution}|{resource_type}|{stem}".encode())
        head = whole[:13]

        def made(rest: str) -> str:
            hashed = begun.copy()
            hashed.update(rest.encode())
            digest = hashed.hexdigest()
            return f"{head}-8{digest[13:16]}-{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"
        return made

    def patient_system(self, authority: str = "") -> str:
        """The system URI of a patient number: its assigning authority's where the manifest names one, else ours."""
        return (self.identifier_systems.get(authority) if authority else None) or self.system("patient")

    def patient_id(self, system: str, number: str) -> str:
        """The Patient that a hospital number means, from whatever protocol (PID-3, (0010,0020)) it comes."""
        return self.id_for("Patient", f"{system}|{number}")

    def system(self, kind: str) -> str:
        """The system URI of this hospital's own identifiers of a kind: ``patient``, ``placer``, ``filler`` …"""
        return f"urn:huren:{self.institution}:{kind}"

    def table(self, place: str, value: str) -> str:
        """The standard's value for the hospital's own at a place such as ``OBX-8``."""
        override = self.tables.get(place)
        return override.get(value, value) if override else value

    def concept(self, local: str, display: str, system: str = "") -> tuple[dict[str, Any], bool]:
        """A CodeableConcept of unified, LOINC and the hospital's own coding; False when the code is unmapped."""
        own = {"system": system or self.code_system, "code": local}
        if display:
            own["display"] = display
        found = self.codes.codings(local, own["system"]) if local else []
        concept: dict[str, Any] = {"coding": [*found, own]} if local else {}
        if display:
            concept["text"] = display
        return concept, bool(found) or self.codes.without_item(local)
