"""Reports and images that know each other by a number alone: ``imagingStudy``, in either order of arrival.

A report that names its study by UID needs none of this (`gateway.hl7v2.imaging_report`). For all others the accession
number counts, then the filler's and the placer's order number, against the accession numbers of the hospital's own
studies of the same person; an order may have several studies. Whichever is stored second makes the link: a report looks
before it is written, so that a corrected one keeps its link in one version, and once more behind the commit, before its
message is settled; a study looks behind its commit, before it counts as published. Of two that come at the same moment
at least one sees the other, and after a crash the one that was not settled is run again.

A document that another replaces is superseded in the same way, whichever of the two is stored second.
When persons become one, or part, the store marks their studies unpublished: to publish them again makes the links as
they should be now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway import search
from gateway.caller import GATEWAY
from gateway.fhir import json
from gateway.fhir.resource import text
from gateway.hl7v2 import tables
from gateway.source import Amendment, Conversion, Resource
from gateway.store import types
from gateway.store.model import Put, Row
from gateway.terminology import ITEMS

if TYPE_CHECKING:
    from gateway.store import Store

#: More studies than this under one number, or more reports, and the number is none: "0" or a form's title.
MOST = 8
_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
_ORDER = ("ACSN", "FILL", "PLAC")
_SECTION = f"{tables.V2}0074"
_STUDY_UID = "urn:dicom:uid"


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is to be looked at once more behind the commit: reports that found no study, documents as `Conversion` has
    them in ``replaceable``."""

    reports: list[str]
    documents: dict[str, bool]

    def __bool__(self) -> bool:
        return bool(self.reports or self.documents)


class Joining:
    """Finds in one store the studies of reports, the reports of studies, and what has replaced a document."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fill(self, conversion: Conversion, institution: str) -> Waiting:
        """Let the conversion's reports and documents say what the store knows of them already."""
        for id, states in conversion.replaceable.items():
            self._supersede(conversion, id, states)
        return Waiting(self._fill_reports(conversion, institution), conversion.replaceable)

    def again(self, waiting: Waiting, institution: str) -> list[Put]:
        """Behind the commit: what makes reports and documents as they should be now."""
        return self.of_reports(waiting.reports, institution) + self.of_documents(waiting.documents, institution)

    # ---------------------------------------------------------------- documents

    def of_documents(self, ids: Mapping[str, bool], institution: str) -> list[Put]:
        """What makes those of these stored documents superseded that another one replaces."""
        found = self._store.standing([("DocumentReference", id) for id in sorted(ids)])
        return [Put({**held.resource, "status": "superseded"}, institution, if_match=held.version)
                for (_, id), held in found.items() if held.resource.get("status") == "current"
                and self._is_replaced(id, held.as_of, ids[id])]

    def _supersede(self, conversion: Conversion, id: str, states: bool) -> None:
        """A document that comes after what replaces it."""
        for change in conversion.changes:
            if change.resource["id"] == id and change.resource.get("status") == "current" \
                    and self._is_replaced(id, change.as_of, states):
                change.resource["status"] = "superseded"
        for at, told in enumerate(conversion.amendments):
            if told.id == id and self._is_replaced(id, told.as_of, states):
                conversion.amendments[at] = replace(told, change=partial(_superseded, told))

    def _is_replaced(self, id: str, as_of: int | None, states: bool) -> bool:
        """Whether a stored document says that it replaces this one; who says later that it is available has the last
        word."""
        wanted = f"DocumentReference/{id}"
        page = search.search(self._store, GATEWAY, "DocumentReference", [("relatesto", wanted), ("_count", "100")])
        others = self._store.standing([("DocumentReference", row.id) for row in page.rows])
        return any(other.as_of is None or as_of is None or not states or other.as_of >= as_of
                   for other in others.values()
                   if any(one.get("code") == "replaces" and one.get("target", {}).get("reference") == wanted
                          for one in other.resource.get("relatesTo", ())))

    # ---------------------------------------------------------------- images

    def _fill_reports(self, conversion: Conversion, institution: str) -> list[str]:
        """Give the conversion's reports the studies that are here; returns the ids of those that found none."""
        if not conversion.unjoined:
            return []
        reports = {c.resource["id"]: c.resource for c in conversion.changes
                   if c.resource["resourceType"] == "DiagnosticReport"}
        waiting = []
        for id in conversion.unjoined:
            if (report := reports.get(id)) is None:
                continue
            patient = _subject(report)
            person = self._store.persons_of([patient]).get(patient, 0) if patient else 0
            if links := self._studies_of(report, person, institution):
                made = _linked(report, links)
                report.clear()
                report.update(made)
            else:
                waiting.append(id)
        return waiting

    def of_reports(self, ids: Iterable[str], institution: str) -> list[Put]:
        """What makes the links of these stored reports as they should be now; nothing where they are."""
        rows = self._store.named([types.key("DiagnosticReport", id) for id in ids], GATEWAY)
        return [put for row in rows if (put := self._relinked(row, _read(row), institution))]

    def of_studies(self, ids: Iterable[str], institution: str) -> list[Put]:
        """The same for every report that has one of these studies' accession numbers, or a link to one of them."""
        found: dict[str, Row] = {}
        for row in self._store.named([types.key("ImagingStudy", id) for id in ids], GATEWAY):
            asked = [("imaging-study", f"ImagingStudy/{row.id}")]
            if numbers := accession_numbers(_read(row)):
                found |= self._search("DiagnosticReport", "identifier", numbers, institution)
            page = search.search(self._store, GATEWAY, "DiagnosticReport", asked)
            found |= {one.id: one for one in page.rows if one.institution == institution}
        return [put for id in sorted(found) if (put := self._relinked(found[id], _read(found[id]), institution))]

    def _relinked(self, row: Row, report: Resource, institution: str) -> Put | None:
        """The report with the links that it should have; None where it has them, or names its studies itself."""
        held = report.get("imagingStudy", [])
        if any(one.get("identifier", {}).get("system") == _STUDY_UID for one in held) or not is_of_images(report):
            return None
        links = self._studies_of(report, row.person, institution)
        if links == held:
            return None
        return Put(_linked(report, links), institution, if_match=row.version)

    def _studies_of(self, report: Resource, person: int, institution: str) -> list[dict[str, Any]]:
        """References to the person's studies under the first kind of number that finds any."""
        numbers: dict[str, list[str]] = {kind: [] for kind in _ORDER}
        for kind, value in _numbers(report):
            numbers[kind].append(value)
        wanted = [value for kind in _ORDER for value in numbers[kind]]
        if not person or not wanted:
            return []
        rows = self._search("ImagingStudy", "identifier", wanted, institution)
        studies = {id: accession_numbers(_read(row)) for id, row in sorted(rows.items()) if row.person == person}
        for kind in _ORDER:
            found = {id: shared[0] for id, own in studies.items()
                     if (shared := [value for value in numbers[kind] if value in own])}
            if found:
                return [{"reference": f"ImagingStudy/{id}", "identifier": {
                    "type": {"coding": [{"system": _TYPE, "code": "ACSN"}]}, "value": value}}
                        for id, value in found.items()] if len(found) <= MOST else []
        return []

    def _search(self, resource_type: str, parameter: str, values: Iterable[str], institution: str) -> dict[str, Row]:
        """The hospital's own resources with one of these numbers, whoever issued them."""
        wanted = ",".join(map(search.escape, dict.fromkeys(values)))
        page = search.search(self._store, GATEWAY, resource_type, [
            (parameter, wanted), ("_source", f"urn:huren:{institution}"), ("_count", "100")])
        return {row.id: row for row in page.rows if row.institution == institution}


def accession_numbers(study: Mapping[str, Any]) -> list[str]:
    """The accession numbers of an ImagingStudy (0008,0050)."""
    return [value for kind, value in _numbers(study) if kind == "ACSN"]


def is_of_images(report: Mapping[str, Any]) -> bool:
    """Whether a stored report is about images, as `gateway.hl7v2.imaging_report.is_of_images` saw it."""
    sections = [coding for concept in report.get("category", ()) for coding in concept.get("coding", ())]
    return any(coding.get("system") == _SECTION and tables.OBSERVATION_CATEGORY.get(coding.get("code", "")) == "imaging"
               for coding in sections) or any(
        coding.get("system") == ITEMS and str(coding.get("code", "")).startswith("E")
        for coding in report.get("code", {}).get("coding", ()))


def _numbers(resource: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(coding["code"], str(one["value"])) for one in resource.get("identifier", ()) if one.get("value")
            for coding in one.get("type", {}).get("coding", ()) if coding.get("code") in _ORDER]


def _linked(report: Resource, links: list[dict[str, Any]]) -> Resource:
    """The report with these studies, which stand where R4 has them."""
    made: Resource = {}
    for name, value in report.items():
        if name in ("media", "conclusion", "conclusionCode", "presentedForm") and links and "imagingStudy" not in made:
            made["imagingStudy"] = links
        if name != "imagingStudy":
            made[name] = value
    if links:
        made.setdefault("imagingStudy", links)
    return made


def _superseded(told: Amendment, held: Resource | None) -> Resource | None:
    """What a message without content makes of a document that another has replaced."""
    made = told.change(held)
    return {**made, "status": "superseded"} if made and made.get("status") == "current" else made


def _subject(report: Mapping[str, Any]) -> str:
    return str(report.get("subject", {}).get("reference", "")).removeprefix("Patient/")


def _read(row: Row) -> Resource:
    return json.loads(text(row.resource_type, row.id, row.version, row.updated, row.tail))
