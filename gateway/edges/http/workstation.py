"""``/demo/workstation``: a visitor plays the doctor. Only in the demo; elsewhere there is no such path.

The page is any hospital's workstation: it embeds the plug-in by its tag, signs orders by CDS Hooks and bills by the
billing gate. What is here is what a workstation has of its own: hospitals, their menus, and patients.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import flask

from gateway import search
from gateway.adapter import Adapter, read_codes
from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http.exchange import Response, current
from gateway.edges.http.interactions import text_of_row
from gateway.edges.http.pages import name_of, national_of
from gateway.edges.http.timeline import when_of
from gateway.edges.http.widget import page
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.recognition.model import Kind, Order, Signature
from gateway.recognition.rules import RuleSet
from gateway.recognition.service import Recognition

if TYPE_CHECKING:
    from gateway.store import Store

PATH = "/demo/workstation"
_DOCUMENTS, _PATIENTS = 200, 6


def install(app: flask.Flask, settings: Settings, store: Store, recognition: Recognition,
            adapters: Iterable[Adapter]) -> None:
    """Add the page and its data, in the demo."""
    if not settings.demo:
        return
    views = _Workstation(settings, store, recognition, adapters)
    app.add_url_rule(PATH, "page:workstation", views.page)
    app.add_url_rule(f"{PATH}/data", "page:workstation-data", views.data)
    app.add_url_rule(f"{PATH}/useful", "page:workstation-useful", views.useful)


class _Workstation:
    def __init__(self, settings: Settings, store: Store, recognition: Recognition, adapters: Iterable[Adapter]) -> None:
        self._settings = settings
        self._store = store
        self._recognition = recognition
        self._adapters = [a for a in adapters if not a.per_facility and (a.sending_facility or a.calling_aets)]

    def page(self) -> Response:
        """The page without data; its script asks for them."""
        return page(current(), "workstation.html", self._settings)

    def data(self) -> Response:
        """The patients with the newest results, and the hospitals with their menus: first where the first patient's
        results of other hospitals would cover most orders."""
        rules = self._recognition.rules()
        patients = self._patients(current().caller)
        covered = {a.source.institution: len(self._covered(a, patients[0]["resource"], rules)) if patients else 0
                   for a in self._adapters}
        hospitals = [self._hospital(adapter, rules) for adapter in self._adapters]
        hospitals.sort(key=lambda h: (-covered[h["id"]], -len(h["menu"]), h["id"]))
        return _answer({"hospitals": [h for h in hospitals if h["menu"]], "patients": patients})

    def useful(self) -> Response:
        """Which entries of a hospital's menu other hospitals' results would cover: for the page's hint."""
        request = current()
        adapter = next((a for a in self._adapters if a.source.institution == request.args.get("institution")), None)
        patient = self._patient(request.caller, request.args.get("patient", ""))
        if adapter is None or patient is None:
            raise GatewayError(Category.NOT_FOUND, "there is no such hospital or patient here", "patient")
        return _answer({"codes": self._covered(adapter, patient, self._recognition.rules())})

    def _covered(self, adapter: Adapter, patient: dict[str, Any], rules: RuleSet) -> list[str]:
        """Codes of the menu whose orders other results would cover now; nothing is recorded."""
        request, institution, menu = current(), adapter.source.institution, self._menu(adapter, rules)
        orders = tuple(Order(institution, f"menu-{row['code']}", row["item"], row["code"]) for row in menu)
        found = self._recognition.check(Signature(institution, orders, patient, "check", time.time_ns() // 1000,
                                                  request.caller.name, request.asked.peer, record=False))
        return [one.order.local for one in found if one.verdict.kind is Kind.RECOGNISABLE]

    # ---------------------------------------------------------------- hospitals

    def _hospital(self, adapter: Adapter, rules: RuleSet) -> dict[str, Any]:
        slug = adapter.source.institution
        zh, _, en = adapter.source.name.partition(" · ")
        return {"id": slug, "name_zh": zh, "name_en": en or zh, "code_system": adapter.source.code_system,
                "menu": self._menu(adapter, rules)}

    def _menu(self, adapter: Adapter, rules: RuleSet) -> list[dict[str, str]]:
        """What a doctor orders there: exams and panels under the hospital's own codes."""
        rows = []
        for row in read_codes(adapter.folder / "codes.csv"):
            item, panel = rules.catalogue.items.get(row.item), rules.catalogue.panels.get(row.item)
            if panel is not None or (item is not None and item.domain == "exam"):
                names = panel or item
                assert names is not None
                rows.append({"code": row.local, "display": row.display, "item": row.item, "name_en": names.name_en,
                             "name_zh": row.display or names.name_zh, "kind": "panel" if panel else "exam"})
        return rows

    # ---------------------------------------------------------------- patients

    def _patients(self, caller: Caller) -> list[dict[str, Any]]:
        """Persons with a national number, those with the newest results first."""
        documents = [one for kind in ("DiagnosticReport", "ImagingStudy") for one in self._find(
            caller, kind, [("_sort", "-date" if kind == "DiagnosticReport" else "-started"),
                           ("_count", str(_DOCUMENTS))])]
        documents.sort(key=when_of, reverse=True)
        newest: dict[str, dict[str, Any]] = {}  # Patient id → its newest document
        for one in documents:
            newest.setdefault(str((one.get("subject") or {}).get("reference", "")).removeprefix("Patient/"), one)
        ids = [id for id in newest if id][:100]
        persons = self._store.persons_of(ids)
        parts = [ids[start:start + 50] for start in range(0, len(ids), 50)]
        patients = {p["id"]: p for part in parts
                    for p in self._find(caller, "Patient", [("_id", ",".join(part)), ("_count", "50")])}
        found: dict[int, dict[str, Any]] = {}
        for id in ids:
            patient = patients.get(id)
            if patient is not None and national_of(patient) and persons.get(id, 0) not in found:
                found[persons.get(id, 0)] = {
                    "id": id, "name": name_of(patient), "gender": patient.get("gender", ""),
                    "birthDate": patient.get("birthDate", ""), "resource": _as_ordered(patient),
                    "newest": when_of(newest[id])}
        return list(found.values())[:_PATIENTS]

    def _patient(self, caller: Caller, patient_id: str) -> dict[str, Any] | None:
        found = self._find(caller, "Patient", [("_id", patient_id)]) if patient_id else []
        return _as_ordered(found[0]) if found else None

    def _find(self, caller: Caller, kind: str, query: list[tuple[str, str]]) -> list[dict[str, Any]]:
        page = search.search(self._store, caller, kind, urlencode(query), "strict")
        return [json.loads(text_of_row(row)) for row in page.rows]


def _as_ordered(patient: dict[str, Any]) -> dict[str, Any]:
    """The Patient as another hospital registers it: by the national number, without this one's own numbers."""
    shown: dict[str, Any] = {"resourceType": "Patient", "id": patient["id"], "identifier": [
        {"system": NATIONAL_ID_SYSTEM, "value": national_of(patient)}], "name": [{"text": name_of(patient)}]}
    return shown | {name: patient[name] for name in ("gender", "birthDate") if name in patient}


def _answer(value: dict[str, Any]) -> Response:
    return Response([json.dumps(value)], content_type="application/json")
