"""The start page and one person's time line: server-rendered, from searches that any FHIR client can make."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import flask

from gateway import __version__, search
from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.interactions import text_of_row
from gateway.edges.http.texts import in_language, language_of, texts
from gateway.edges.http.timeline import ITEM, courses, days, institution_of, when_of
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.identity import NATIONAL_ID_SYSTEM, is_national_system

if TYPE_CHECKING:
    from gateway.store import Store

_REPORTS, _STUDIES, _PEOPLE = 200, 100, 12
_CSP = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'; " \
       "form-action 'none'; frame-ancestors 'none'"


def install(app: flask.Flask, settings: Settings, store: Store) -> None:
    """Add ``/``, ``/person/<id>`` and the icon."""
    views = _Pages(settings, store)
    app.add_url_rule("/", "page:start", views.start)
    app.add_url_rule("/person/<patient_id>", "page:person", views.person)
    app.add_url_rule("/favicon.ico", "page:icon", lambda: app.send_static_file("mark.svg"))
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True


@dataclass(slots=True)
class _Person:
    """A row of the start page."""

    patient: str  # a Patient id, by which the time line is found
    name: str
    gender: str
    birth_date: str
    institutions: list[str] = field(default_factory=list)
    newest: str = ""
    reports: int = 0
    studies: int = 0
    national: str = ""


@dataclass(frozen=True, slots=True)
class _Example:
    """A query that can be opened or copied."""

    text: str
    url: str
    curl: str


class _Pages:
    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    # ---------------------------------------------------------------- start page

    def start(self) -> Response:
        """What runs here. Without a login it shows sums, and nothing of any patient."""
        request = current()
        counts = self._counts()
        hospitals: dict[str, str] = {}
        people: list[_Person] = []
        if self._settings.demo:
            hospitals = self._hospitals(request.caller)
            people = self._people(request.caller)
        return self._page(request, "start.html", counts=counts, people=people, hospitals=hospitals,
                          examples=self._examples(request, people), settings=self._settings,
                          waiting=self._settings.demo and not people)

    def _counts(self) -> dict[str, int]:
        """What the tiles show; a database that is away does not take the page with it."""
        try:
            return tiles(self._store.counts())
        except GatewayError:
            return {}

    def _hospitals(self, caller: Caller) -> dict[str, str]:
        """Slug → name of the hospitals that have sent something."""
        found = self._find(caller, "Organization", [("_count", "200"), ("_sort", "_id")])
        return {o["id"]: o.get("name", o["id"]) for o in found if institution_of(o) == o["id"]}

    def _people(self, caller: Caller) -> list[_Person]:
        """Persons of the newest reports and studies, those with most hospitals first."""
        recent = [("_sort", "-_lastUpdated"), ("_count", str(_REPORTS))]
        documents = self._find(caller, "DiagnosticReport", recent) + self._find(caller, "ImagingStudy", recent)
        subjects = {document["id"]: _subject(document) for document in documents}
        patients = self._patients(caller, sorted(set(filter(None, subjects.values()))))
        keys = self._store.persons_of(list(patients))
        rows: dict[int, _Person] = {}
        for document in documents:
            patient = patients.get(subjects[document["id"]])
            if patient is None:
                continue
            key = keys.get(patient["id"], 0)
            row = rows.setdefault(key, _Person(patient["id"], name_of(patient), patient.get("gender", "unknown"),
                                               patient.get("birthDate", "")))
            row.national = row.national or national_of(patient)
            if (institution := institution_of(document)) and institution not in row.institutions:
                row.institutions.append(institution)
            row.newest = max(row.newest, when_of(document)[:10])
            row.reports += document["resourceType"] == "DiagnosticReport"
            row.studies += document["resourceType"] == "ImagingStudy"
        for row in rows.values():
            row.institutions.sort()
        return sorted(rows.values(), key=lambda r: (-len(r.institutions), -r.reports - r.studies, r.name))[:_PEOPLE]

    def _examples(self, request: Request, people: list[_Person]) -> list[_Example]:
        language = _language(request)
        said = texts(language)
        base = request.asked.base + "/fhir"
        who = people[0] if people else _Person("PATIENT-ID", "", "", "")
        token = f"{NATIONAL_ID_SYSTEM}|{who.national}" if who.national else f"{NATIONAL_ID_SYSTEM}|NATIONAL-ID"
        item = f"{ITEM}|{self._common_item(request.caller, who.patient)}" if people else f"{ITEM}|ITEM"
        queries: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("q_person", "DiagnosticReport", {"patient.identifier": token, "_sort": "-date",
                                              "_include": "DiagnosticReport:result"}),
            ("q_item", "Observation", {"patient": who.patient, "code": item, "_sort": "-date"}),
            ("q_images", "ImagingStudy", {"patient": who.patient, "_sort": "-started"}),
            ("q_above", "Observation", {"code": item, "value-quantity": "gt5", "_count": "20"}),
            ("q_metadata", "metadata", {}))
        found = []
        for key, path, query in queries:
            url = f"{base}/{path}" + (f"?{urlencode(query, safe=':/')}" if query else "")
            login = "" if self._settings.demo or path == "metadata" else '-H "Authorization: Bearer $TOKEN" '
            found.append(_Example(said[key], url, f"curl {login}{shlex.quote(url)}"))
        return found

    def _common_item(self, caller: Caller, patient: str) -> str:
        """The unified item that this person has most results of: an example that shows something."""
        counts: dict[str, int] = {}
        for observation in self._find(caller, "Observation", [("patient", patient), ("_count", "300")]):
            for coding in (observation.get("code") or {}).get("coding", ()):
                if coding.get("system") == ITEM and "valueQuantity" in observation:
                    counts[coding["code"]] = counts.get(coding["code"], 0) + 1
        return max(sorted(counts), key=lambda code: counts[code], default="ITEM")

    # ---------------------------------------------------------------- one person

    def person(self, patient_id: str) -> Response:
        """A person's results from all hospitals, newest first."""
        request = current()
        caller = request.caller
        for kind in ("Patient", "DiagnosticReport", "Observation", "ImagingStudy"):
            caller.require("s", kind)
        patients = self._patients(caller, [patient_id])
        if patient_id not in patients:
            raise GatewayError(Category.NOT_FOUND, "there is no such patient, or this client may not see it")
        reports, included = self._split("DiagnosticReport", caller, [
            ("patient", patient_id), ("_sort", "-date"), ("_count", str(_REPORTS)),
            ("_include", "DiagnosticReport:result")])
        studies = self._find(caller, "ImagingStudy", [("patient", patient_id), ("_sort", "-started"),
                                                      ("_count", str(_STUDIES))])
        request.target = f"person of Patient/{patient_id}"
        request.persons = tuple(self._store.persons_of([patient_id]).values())
        for person in request.persons:
            patients |= self._patients(caller, self._store.patients_of(person))
        observations = {f"Observation/{o['id']}": o for o in included}
        return self._page(
            request, "person.html", patient=patients[patient_id], name=name_of(patients[patient_id]),
            patients=sorted(patients.values(), key=institution_of), days=days(reports, studies, observations),
            courses=courses(included), hospitals=self._hospitals(caller), more=len(reports) == _REPORTS)

    # ---------------------------------------------------------------- searches

    def _split(self, kind: str, caller: Caller, query: list[tuple[str, str]]
               ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Matches and included resources of one page."""
        page = search.search(self._store, caller, kind, urlencode(query), "strict")
        return [json.loads(text_of_row(row)) for row in page.rows], [json.loads(text_of_row(r)) for r in page.included]

    def _find(self, caller: Caller, kind: str, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        return self._split(kind, caller, query)[0]

    def _patients(self, caller: Caller, ids: list[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), 50):
            query = [("_id", ",".join(ids[start:start + 50])), ("_count", "50")]
            found |= {p["id"]: p for p in self._find(caller, "Patient", query)}
        return found

    # ---------------------------------------------------------------- rendering

    def _page(self, request: Request, template: str, **values: Any) -> Response:
        language = _language(request)
        said = texts(language)
        hospitals = values.get("hospitals", {})
        colours = {slug: place % 6 for place, slug in enumerate(sorted(hospitals))}
        body = flask.render_template(
            template, t=said, lang=language, version=__version__, demo=self._settings.demo, base=request.asked.base,
            hospital=lambda slug: in_language(hospitals.get(slug, slug), language),
            colour=lambda slug: f"h{colours.get(slug, 0)}", national_of=national_of, number_of=number_of,
            path=quote(request.path), **values)
        response = Response([body.encode()], content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = _CSP
        response.headers["Content-Language"] = "zh-CN" if language == "zh" else "en"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Vary"] = "Accept-Language"
        return response


def _language(request: Request) -> str:
    return language_of(request.args.get("lang", ""), request.headers.get("Accept-Language", ""))


def _subject(document: dict[str, Any]) -> str:
    """The Patient id of a report or study."""
    reference = str((document.get("subject") or {}).get("reference", ""))
    return reference.removeprefix("Patient/") if reference.startswith("Patient/") else ""


def name_of(patient: dict[str, Any]) -> str:
    """The name to show: the official one, else the first."""
    names = patient.get("name") or [{}]
    name = next((n for n in names if n.get("use") == "official"), names[0])
    return str(name.get("text") or " ".join([name.get("family", ""), *name.get("given", [])]).strip() or "—")


def national_of(patient: dict[str, Any]) -> str:
    """The national identifier, or empty."""
    return next((str(i.get("value", "")) for i in patient.get("identifier", ())
                 if is_national_system(str(i.get("system", "")))), "")


def number_of(patient: dict[str, Any]) -> str:
    """The hospital's own number of the patient, or empty."""
    return next((str(i.get("value", "")) for i in patient.get("identifier", ())
                 if not is_national_system(str(i.get("system", "")))), "")


def tiles(counts: Any) -> dict[str, int]:
    """The store's counts as the tiles of the start page show them."""
    kinds, inbox = counts["resources"], counts["inbox"]
    return {"persons": counts["persons"], "reports": kinds.get("DiagnosticReport", 0),
            "studies": kinds.get("ImagingStudy", 0), "observations": kinds.get("Observation", 0),
            "hospitals": counts["institutions"], "quarantined": inbox["quarantined"], "unmapped": counts["unmapped"]}
