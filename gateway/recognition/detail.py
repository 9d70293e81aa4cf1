"""What the plug-in shows of a line: the order, the verdict, what may be decided, and the earlier reports with values.

What it shows of other hospitals is what the reminder named, and the course of the same items of the same person; the
caller has been found to be allowed to see the line. One JSON-able dict; `gateway.edges.http.widget` says its form.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from gateway.caller import GATEWAY
from gateway.fhir import json, resource
from gateway.fhir.display import concluding, flag_of, institution_of, label, range_of, value_of
from gateway.recognition.checking import Checker
from gateway.recognition.decision import DECIDED, body_of
from gateway.recognition.model import FLAG_NAMES, EventKind, Kind, LineBody
from gateway.recognition.orders import candidate_from
from gateway.recognition.rules import Reason, RuleSet
from gateway.recognition.verdict import ISSUED
from gateway.store import types
from gateway.store.model import Line, Result, Row
from gateway.terminology import ITEMS

if TYPE_CHECKING:
    from gateway.store import Store

TREND = 10  # values of an item
_MOST_TEXT = 20_000  # characters of a report's text
_STUDY = "113014"  # DCM: the Observation that only names the study
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SENTENCE = frozenset("\n。；，")
_CELL = 24  # a value longer than this is a text to read


class Detail:
    """Makes the dict; ``today``: the local day, for reasons and settings."""

    def __init__(self, store: Store, checker: Checker, rules: RuleSet, today: date) -> None:
        self._store, self._checker, self._rules, self._today = store, checker, rules, today

    def of(self, line: Line) -> dict[str, Any]:
        """Everything about a line."""
        body, rules = body_of(line), self._rules

        def setting(key: str) -> bool:
            return rules.setting(line.institution, key, line.item, body.department, self._today) == "yes"

        open_ = line.state not in DECIDED and not body.billed and body.verdict == Kind.RECOGNISABLE
        return {
            "line": line.id, "state": line.state, "institution": line.institution, "number": line.number,
            "version": line.version, "verdict": body.verdict or Kind.NOT.value, "interruptive": body.interruptive,
            "blocking": open_ and setting("blocking"), "must_view": setting("must_view"),
            "explained": setting("explained"), "billed": body.billed, "viewed": bool(body.viewed_at),
            "order": self.order(line, body), "codes": self._codes(line), "states": list(body.states),
            "missing": [{"item": item, **self._names(item)} for item in body.missing],
            "preselected": body.preselected, "reasons": self._reasons(line, body),
            "decision": self._decision(line, body), "catalogue": body.catalogue, "card": body.card,
            "reports": self._reports(line, body)}

    def order(self, line: Line, body: LineBody) -> dict[str, Any]:
        """The order in names; without a unified item its own display stands for them."""
        own = body.display or body.local
        names = self._names(line.item) if line.item else {"name_zh": own, "name_en": own}
        return {"item": line.item, **names, "local": body.local, "display": body.display,
                "department": body.department, "doctor": body.doctor, "reference": body.reference,
                "encounter": body.encounter}

    def _names(self, item: str) -> dict[str, str]:
        names = self._rules.catalogue
        return {"name_zh": names.display(item) or item, "name_en": names.display(item, "en") or item}

    def _hospital(self, slug: str) -> dict[str, str]:
        return {"institution": slug, "institution_zh": self._rules.name_of(slug),
                "institution_en": self._rules.name_of(slug, "en")}

    def _reasons(self, line: Line, body: LineBody) -> list[dict[str, Any]]:
        """What may be given as reason today, the preselected one first."""
        rows = sorted(self._rules.reasons_for(line.institution, self._today), key=lambda row: row.code !=
                      body.preselected)
        return [_reason(row) for row in rows]

    def _decision(self, line: Line, body: LineBody) -> dict[str, Any] | None:
        if not body.decision:
            return None
        return {"id": body.decision, "state": line.state, "doctor": body.decided_by, "at": iso(body.decided_at),
                "reason": body.reason, "text": body.text, "explained": body.explained}

    def _codes(self, line: Line) -> list[str]:
        """Why it is quiet, as the last reminder said."""
        for event in reversed(self._store.events(line.id)):
            if event.kind == EventKind.REMINDED:
                return list(orjson.loads(event.text).get("codes", ()))
        return []

    # ---------------------------------------------------------------- reports

    def _reports(self, line: Line, body: LineBody) -> list[dict[str, Any]]:
        reports = self._read("DiagnosticReport", body.reports)
        wanted = [reference for report in reports.values() for one in report.get("result", ())
                  if (reference := str(one.get("reference", ""))).startswith("Observation/")]
        wanted += [one for one in body.results if one.startswith("Observation/")]
        observations = self._read("Observation", (one.partition("/")[2] for one in dict.fromkeys(wanted)))
        items = {item for one in observations.values() if (item := item_of(one))}
        trend = self._trend(line.person, items)
        made = [self._report(reports[id], observations, body, trend) for id in body.reports if id in reports]
        inside = {one.get("reference") for report in reports.values() for one in report.get("result", ())}
        alone = [one for id, one in observations.items() if f"Observation/{id}" not in inside]
        return made + [self._alone(one, body, trend) for one in alone]

    def _read(self, kind: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        rows = self._store.named([types.key(kind, id) for id in ids], GATEWAY)
        return {row.id: read(row) for row in rows}

    def _report(self, report: Mapping[str, Any], observations: Mapping[str, dict[str, Any]], body: LineBody,
                trend: _Trend) -> dict[str, Any]:
        own = [found for one in report.get("result", ())
               if (found := observations.get(str(one.get("reference", "")).partition("/")[2]))]
        shown = [one for one in own if not _is_link(one)]
        conclusion = str(report.get("conclusion", ""))
        twice = concluding([value_of(one)[0] for one in shown], conclusion)
        shown = [one for at, one in enumerate(shown) if at not in twice]
        texts = [{"name": label(one.get("code")), "text": value_of(one)[0][:_MOST_TEXT]} for one in shown
                 if _is_text(one)]
        texts += [{"name": str(form.get("title") or ""), "text": text} for form in report.get("presentedForm", ())
                  if (text := _text_of(form))]
        item = item_of(report)
        names = self._names(item) if item else dict.fromkeys(("name_zh", "name_en"), label(report.get("code")))
        imaging = item.startswith("E") or bool(report.get("imagingStudy"))
        return {"id": report["id"], "kind": "imaging" if imaging else "lab", "title_zh": names["name_zh"],
                "title_en": names["name_en"], **self._hospital(institution_of(report)), **_times(report),
                "status": report.get("status", ""), "conclusion": conclusion,
                "performer": _people(report), "flags": self._result_flags(report), "texts": texts,
                "covers": f"DiagnosticReport/{report['id']}" in body.results,
                "studies": self._studies(report),
                "results": [self._result(one, body, trend) for one in shown if not _is_text(one)]}

    def _alone(self, observation: dict[str, Any], body: LineBody, trend: _Trend) -> dict[str, Any]:
        """A result that stands in no report."""
        item = item_of(observation)
        names = self._names(item)
        return {"id": "", "kind": "lab", "title_zh": names["name_zh"], "title_en": names["name_en"],
                **self._hospital(institution_of(observation)), **_times(observation),
                "status": observation.get("status", ""), "conclusion": "", "performer": _people(observation),
                "flags": [], "texts": [], "covers": True, "studies": [],
                "results": [self._result(observation, body, trend)]}

    def _result(self, observation: dict[str, Any], body: LineBody, trend: _Trend) -> dict[str, Any]:
        item = item_of(observation)
        value, unit = value_of(observation)
        names = self._names(item) if item else dict.fromkeys(("name_zh", "name_en"), label(observation.get("code")))
        return {"id": observation["id"], "item": item, **names, "value": value, "unit": unit,
                "range": range_of(observation), "flag": flag_of(observation), "status": observation.get("status", ""),
                "covers": f"Observation/{observation['id']}" in body.results,
                "trend": list(trend.get((item, _unit(observation)), ())) if item else []}

    def _result_flags(self, report: Mapping[str, Any]) -> list[str]:
        """Flags of the result as the index has them."""
        row = self._store.read("DiagnosticReport", str(report["id"]), GATEWAY)
        if row is None or not (item := item_of(report)):
            return []
        found: list[Result] = [one for one in self._store.results(row.person, [item], 0) if one.pk == row.pk]
        return [name for one in found[:1] for bit, name in FLAG_NAMES.items()
                if candidate_from(one).flags & bit]

    def _studies(self, report: Mapping[str, Any]) -> list[dict[str, str]]:
        """The studies to open: those that the report names, else those of its order's numbers."""
        named = [str(one.get("reference", "")).partition("/")[2] for one in report.get("imagingStudy") or ()]
        found = list(self._read("ImagingStudy", filter(None, named)).values()) if named else \
            [read(row) for row in self._checker.studies_of(report)] if item_of(report).startswith("E") else []
        return [{"id": str(one["id"]), "uid": _study_uid(one), "description": str(one.get("description", "")),
                 "status": str(one.get("status", ""))} for one in found]

    # ---------------------------------------------------------------- trend

    def _trend(self, person: int, items: Iterable[str]) -> _Trend:
        """The newest numbers of each item and unit, oldest first."""
        newest: dict[str, list[int]] = {}
        rows = [one for one in self._store.results(person, list(items), 0)
                if one.kind == "Observation" and one.status in ISSUED and one.time]
        for one in rows:
            if len(own := newest.setdefault(one.item, [])) < TREND:
                own.append(one.pk)
        item_at = {one.pk: (one.item, one.time) for one in rows}
        found: _Trend = {}
        for row in self._store.rows([pk for pks in newest.values() for pk in pks], GATEWAY):
            observation = read(row)
            item, at = item_at[row.pk]
            quantity = observation.get("valueQuantity") or {}
            if quantity.get("value") is not None:
                found.setdefault((item, _unit(observation)), []).append(
                    {"id": row.id, "time": iso(at), "value": value_of(observation)[0], "flag": flag_of(observation),
                     **self._hospital(row.institution)})
        for points in found.values():
            points.sort(key=lambda point: (point["time"], point["id"]))
        return found


_Trend = dict[tuple[str, str], list[dict[str, Any]]]


def iso(us: int) -> str:
    """Microseconds since the epoch in UTC, ISO 8601 to the second; empty for none."""
    return (_EPOCH + timedelta(seconds=us // 1_000_000)).strftime("%Y-%m-%dT%H:%M:%SZ") if us else ""


def item_of(one: Mapping[str, Any]) -> str:
    """The unified item of a report or an observation."""
    return next((str(c["code"]) for c in (one.get("code") or {}).get("coding", ())
                 if c.get("system") == ITEMS and c.get("code")), "")


def _reason(row: Reason) -> dict[str, Any]:
    return {"code": row.code, "text_zh": row.text_zh, "text_en": row.text_en, "needs_text": row.needs_text,
            "counts": row.counts}


def read(row: Row) -> dict[str, Any]:
    """A stored resource, decimals exact."""
    return json.loads(resource.text(row.resource_type, row.id, row.version, row.updated, row.tail))


def _unit(observation: Mapping[str, Any]) -> str:
    quantity = observation.get("valueQuantity") or {}
    return str(quantity.get("code") or quantity.get("unit") or "")


def _times(one: Mapping[str, Any]) -> dict[str, str]:
    """When the specimen was taken or the images were, as sent; and when it was reported."""
    period = one.get("effectivePeriod") or {}
    return {"time": str(one.get("effectiveDateTime") or period.get("start") or ""),
            "issued": str(one.get("issued") or "")}


def _people(one: Mapping[str, Any]) -> list[str]:
    """Who made it, as far as it names them."""
    found = [str(who["display"]) for name in ("performer", "resultsInterpreter") for who in one.get(name, ())
             if who.get("display")]
    return list(dict.fromkeys(found))


def _is_link(observation: Mapping[str, Any]) -> bool:
    return any(c.get("code") == _STUDY for c in (observation.get("code") or {}).get("coding", ()))


def _is_text(observation: Mapping[str, Any]) -> bool:
    value = str(observation.get("valueString", ""))
    return len(value) > _CELL or bool(_SENTENCE & set(value))


def _text_of(form: Mapping[str, Any]) -> str:
    """The text of an Attachment that is plain text; empty for any other."""
    if not str(form.get("contentType", "")).startswith("text/plain") or not form.get("data"):
        return ""
    try:
        return base64.b64decode(str(form["data"]), validate=True).decode("utf-8", "replace")[:_MOST_TEXT]
    except (binascii.Error, ValueError):
        return ""


def _study_uid(study: Mapping[str, Any]) -> str:
    return next((str(one["value"]).removeprefix("urn:oid:") for one in study.get("identifier", ())
                 if one.get("system") == "urn:dicom:uid" and one.get("value")), "")
