"""What the conversion of one message gathers: changes in dependency order, references, times, unmapped codes."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import tables, timestamps
from gateway.hl7v2.datatypes import code_text, codeable, coding_system, decimal, unit_parts
from gateway.hl7v2.flags import interpretations
from gateway.hl7v2.memory import SAID, Known, Said, fresh, keep, memory_of
from gateway.hl7v2.message import Message, Part, Segment
from gateway.hl7v2.ranges import reference_range
from gateway.hl7v2.sections import part_of
from gateway.source import Change, Conversion, Resource, Source, Unmapped

Reference = dict[str, Any]
#: Codes of an OBX that points to a DICOM study (IHE RAD TF-2 4.28): no test, so never an unmapped one.
DICOM_STUDIES = frozenset(("113014", "110180"))


class Builder:
    """One message on its way to a Conversion."""

    def __init__(self, message: Message, source: Source) -> None:
        self.message = message
        self.source = source
        self.zone = source.timezone
        self.meta_source = f"urn:huren:{source.institution}"
        self._hospital = f"Organization/{source.institution}"
        self.sent_at = timestamps.as_of_us(message.header.time, self.zone)
        self.memory = memory_of(message, source)
        self.conversion = Conversion()
        self.people: dict[str, Reference | None] = {}  # XCN as sent → its reference: every OBX may name the same
        self.organizations: dict[tuple[str, str, str], Reference | None] = {}  # OBX-23, 24 and 15 → its reference
        self.observed: set[tuple[str, str]] = set()  # specimen and OBX that were taken
        self.organism_codes: frozenset[str] = frozenset(source.habits.get("organism_codes", ()))
        self.may_belong = False  # some OBX-4 is filled, or an organism is among the results: see isolates.py
        self.parts: dict[str, str] = {}  # Observations of the report that is being made → findings, impression or text
        self.readings: list[tuple[str, str]] = []  # title and text of a report's clinical documents
        self.performers = [self.hospital()]  # of results that name nobody: one list for all of them
        self._interpretations: dict[str, list[dict[str, Any]]] = {}
        self._unmapped: dict[Unmapped, None] = {}  # in order, each once
        self._keys: dict[str, int] = {}
        self._told: dict[str, None] = {}  # references of what was taken over, in order

    def resource(self, resource_type: str, key: str) -> Resource:
        """A new resource with the id of its business identifier."""
        return {"resourceType": resource_type, "id": self.source.id_for(resource_type, key),
                "meta": {"source": self.meta_source}}

    def part(self, whole: str, resource_type: str, key: str) -> Resource:
        """A new resource that belongs to another one, whose id is ``whole``."""
        return {"resourceType": resource_type, "id": self.source.id_within(whole, resource_type, key),
                "meta": {"source": self.meta_source}}

    def parts_of(self, whole: str, resource_type: str, stem: str) -> Callable[[str], Resource]:
        """What makes ``part`` of each of a whole's parts whose keys begin with ``stem`` from the rest of its key, a key
        that comes again made ``distinct``."""
        ids, begin, meta_source = self.source.ids_within(whole, resource_type, stem), len(stem), self.meta_source

        def made(rest: str) -> Resource:
            key = self.distinct(stem + rest)
            return {"resourceType": resource_type, "id": ids(key[begin:]), "meta": {"source": meta_source}}
        return made

    def named(self, resource_type: str, resource_id: str) -> Resource:
        """A new resource with a given id; ``meta.source`` names the hospital, never the message, so that a resend
        changes nothing."""
        return {"resourceType": resource_type, "id": resource_id, "meta": {"source": self.meta_source}}

    def add(self, resource: Resource, as_of: int | None, on_older: str) -> Reference:
        """Take a resource over once and return its reference; the first of several with one id counts."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        if reference not in self._told:
            self._told[reference] = None
            self.conversion.changes.append(Change(resource, as_of, on_older))
        return {"reference": reference}

    def add_onto(self, resource: Resource, as_of: int | None,
                 onto: Callable[[Resource, Resource, bool], Resource]) -> Reference:
        """As ``add``, for a resource that is made on top of what is stored of it (`Change.onto`)."""
        reference = f"{resource['resourceType']}/{resource['id']}"
        if reference not in self._told:
            self._told[reference] = None
            self.conversion.changes.append(Change(resource, as_of, onto=onto))
        return {"reference": reference}

    def hospital(self) -> Reference:
        """A reference to the hospital itself."""
        return {"reference": self._hospital}

    def told(self) -> list[Reference]:
        """References to all that was taken over, but the hospital itself."""
        return [{"reference": reference} for reference in self._told if reference != self._hospital]

    def distinct(self, key: str) -> str:
        """The key, with its ordinal from the second time on that the message uses it."""
        count = self._keys[key] = self._keys.get(key, 0) + 1
        return f"{key}|{count}" if count > 1 else key

    def units(self, obx: Segment) -> dict[str, str]:
        """OBX-6 as unit, system and code: to be copied, never to be put into a resource itself."""
        raw = obx.raw_field(6)
        found = self.memory.units.get(raw)
        if found is None:
            found = keep(self.memory.units, raw, raw, unit_parts(obx.first(6), self.source))
        return found

    def said(self, obx: Segment) -> Said:
        """What an OBX says but for its value, its times and who took part: to be copied, as ``units``."""
        key = obx.several(SAID)
        found = self.memory.said.get(key)
        return found if found is not None else keep(self.memory.said, key, "".join(key), self._read_said(obx), True)

    def interpretation(self, said: Said) -> list[dict[str, Any]]:
        """OBX-8 as Observation.interpretation: one list for all of this message that say the same."""
        found = self._interpretations.get(said.flag)
        if found is None:
            found = self._interpretations[said.flag] = [*map(fresh, said.flags)]
        return found

    def _read_said(self, obx: Segment) -> Said:
        units = self.units(obx)
        try:
            known = self.known(obx, 3)
        except GatewayError:
            known = None
        try:
            state = self.state(obx, 11, tables.OBSERVATION_STATUS)
        except GatewayError:
            state = None
        kind = obx.raw_field(2)
        numeric = kind == "NM" or bool(units) and kind == "ST" and bool(self.source.habits.get("st_numbers"))
        return Said(known, obx.text(4).strip(), units, self._ranges(obx, units), obx.raw_field(8), self._flags(obx),
                    bool(obx.raw_field(10)), state, numeric)

    def _flags(self, obx: Segment) -> list[dict[str, Any]]:
        """OBX-8 as Observation.interpretation."""
        raw = obx.raw_field(8)
        if not raw:
            return []
        found = self.memory.flags.get(raw)
        return found if found is not None else keep(self.memory.flags, raw, raw, interpretations(obx, self.source))

    def _ranges(self, obx: Segment, units: dict[str, str]) -> list[dict[str, Any]]:
        """OBX-7 as Observation.referenceRange."""
        raw = obx.raw_field(7)
        if not raw:
            return []
        key = raw, obx.raw_field(6)
        found = self.memory.ranges.get(key)
        return found if found is not None else keep(self.memory.ranges, key, raw + key[1],
                                                    reference_range(obx, units, self.source))

    def number(self, obx: Segment) -> Decimal | None:
        """OBX-5 of a numeric type, where it is a number and nothing else."""
        raw = obx.raw_field(5)
        found = self.memory.numbers.get(raw)
        if found is None and (text := obx.plain(5)) and (found := decimal(text)) is not None:
            if text in self.source.tables.get("OBX-5", ()):
                return None
            keep(self.memory.numbers, raw, raw, found, many=True)
        return found

    def coded(self, segment: Segment, field: int, table: str = "") -> dict[str, Any]:
        """The first repetition of a coded field as CodeableConcept; empty when nothing is said (`codeable`)."""
        raw = segment.raw_field(field)
        if not raw:
            return {}
        place = f"{segment.name}-{field}"
        key = place, raw
        found = self.memory.coded.get(key)
        if found is None:
            found = keep(self.memory.coded, key, raw, codeable(segment.first(field), self.source, place, table))
        return fresh(found)

    def state(self, segment: Segment, field: int, table: dict[str, str]) -> tuple[str, str]:
        """A status as the HL7 table has it and as FHIR's; INVALID when neither the table nor the manifest knows it."""
        raw = segment.raw_field(field)
        key = field, raw
        if (found := self.memory.states.get(key)) is not None:
            return found
        place = f"{segment.name}-{field}"
        sent = self.source.table(place, segment.get(field)).upper()
        if (status := table.get(sent)) is None:
            raise GatewayError(Category.INVALID, f"{place} holds a status that neither the HL7 table nor the manifest "
                               f"knows{segment.which()}; correct it or add it to the manifest's tables", place,
                               detail="table-value")
        return keep(self.memory.states, key, raw, (sent, status))

    def time_text(self, segment: Segment, field: int, component: int = 1) -> str:
        """The text of a time field after the manifest's table (``"00000000" = ""`` says that zeros mean unknown)."""
        text = segment.get(field, component)
        return self.source.table(f"{segment.name}-{field}", text) if text and self.source.tables else text

    def date_time(self, segment: Segment, field: int, component: int = 1) -> str | None:
        """A time field as FHIR dateTime; None when absent, INVALID with its place when impossible."""
        raw = segment.raw_field(field)
        if not raw:
            return None
        key = segment.name, field, component, raw
        if (found := self.memory.times.get(key)) is not None:
            return found
        if not (text := self.time_text(segment, field, component)):
            return None
        return keep(self.memory.times, key, raw, timestamps.date_time(text, self.zone, f"{segment.name}-{field}"))

    def instant(self, segment: Segment, field: int) -> str | None:
        """A time field as FHIR instant; None when absent or less exact than a minute."""
        text = self.time_text(segment, field)
        return timestamps.instant(text, self.zone, f"{segment.name}-{field}") if text else None

    def period(self, segment: Segment, start: int, end: int, name: str) -> dict[str, Any]:
        """Two time fields as ``<name>DateTime`` or ``<name>Period``; empty without a start.

        FHIR's Period ends no sooner than it starts (per-1): an end that does is left out.
        """
        begin, finish = self.date_time(segment, start), self.date_time(segment, end)
        if not begin:
            return {}
        if not finish or finish == begin or not self.in_order(segment, start, end):
            return {f"{name}DateTime": begin}
        return {f"{name}Period": {"start": begin, "end": finish}}

    def in_order(self, segment: Segment, start: int, end: int) -> bool:
        """Whether two time fields can be start and end of a Period."""
        first = timestamps.as_of_us(self.time_text(segment, start), self.zone)
        last = timestamps.as_of_us(self.time_text(segment, end), self.zone)
        return first is not None and last is not None and first <= last

    def concept(self, segment: Segment, field: int, kind: str, unit: str = "") -> tuple[dict[str, Any], Known]:
        """A test's or order's code as unified, LOINC's and the hospital's own coding; an unmapped one is counted.

        The concept comes as a copy for a resource, and with what else the field says.
        """
        known = self.known(segment, field)
        if not known.mapped:
            self.count(known, kind, unit, f"{segment.name}-{field}")
        return fresh(known.concept), known

    def count(self, known: Known, kind: str, unit: str, place: str) -> None:
        """Count a code that is not mapped, once a message."""
        if known.code not in DICOM_STUDIES:
            self._unmapped.setdefault(Unmapped(kind, known.code, known.text, unit, place))

    def known(self, segment: Segment, field: int) -> Known:
        """What a code field says: to be read, never to be put into a resource itself."""
        raw = segment.raw_field(field)
        known = self.memory.concepts.get((field, raw))
        return known if known is not None else keep(self.memory.concepts, (field, raw), raw,
                                                    self._read_concept(segment, field))

    def _read_concept(self, segment: Segment, field: int) -> Known:
        """The local code is looked up; where it is unmapped, the alternate code (component 4) is.

        A text without any code stands for its own code. INVALID when the field says nothing at all.
        """
        part = segment.first(field)
        sent = part.part(1).text.strip()  # with its suffix: 24531-6&IMP is another part than 24531-6&GDT
        local, display = code_text(sent), part.get(2)
        alternate, alternate_display = code_text(part.get(4)), part.get(5)
        text = display or alternate_display or part.get(9)
        if not local and not alternate and not text:
            segment.require(field)
        name = part.get(3)
        if not local and alternate:
            local, alternate, name = alternate, "", part.get(6)
        elif not local:
            local = code_text(text)  # a hospital without codes: its text is what it tells tests apart by
        system = coding_system(name, self.source.code_system)
        concept, mapped = self.source.concept(local, text, system)
        if alternate:
            other = coding_system(part.get(6), self.source.code_system)
            beside, mapped_beside = self.source.concept(alternate, alternate_display or text, other)
            codings = concept.setdefault("coding", [])
            ours = [c for c in beside["coding"] if c.get("code") != alternate or c["system"] != other]
            if not mapped:
                codings[:0] = ours
            codings.append(beside["coding"][-1])
            mapped = mapped or mapped_beside
        if "coding" in concept and len(concept["coding"]) > 1:
            concept["coding"] = _unique(concept["coding"])
        return Known(concept, local, sent, text, mapped, part_of(part, self.source) if field == 3 else "")

    def finished(self) -> Conversion:
        """Everything gathered."""
        self.conversion.unmapped = list(self._unmapped)
        return self.conversion


def _unique(codings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The codings without a second one of the same system and code; the first may be without display: take it from
    the second."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for coding in codings:
        kept.setdefault((coding.get("system", ""), coding.get("code", "")), coding)
    return list(kept.values())


def text_of(parts: list[Part]) -> str:
    """Repetitions as the lines of one text."""
    return "\n".join(part.text for part in parts).strip()
