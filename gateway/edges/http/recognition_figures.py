"""``GET /recognition/figures``: the figures of recognition as JSON, CSV or MeasureReport; ``…/measure``: what they are.

    ?by=hospital|department|doctor|item|day|month|reason|issuer   (hospital)
    &institution=SLUG      one hospital; needed for departments and doctors
    &from=2026-01-01&to=2026-12-31                                (the running month); a month or year will do as well
    &format=json|csv|fhir  (by Accept)    &language=zh|en         (CSV's header, by Accept-Language)

Read scope on MeasureReport is needed; a client with institution scope sees its own hospital's figures only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import flask

from gateway.caller import Caller
from gateway.config import Settings
from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.texts import LANGUAGES, language_of
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.recognition.figures import Counting
from gateway.recognition.measure import days_of, measure, measure_report, to_csv, to_json
from gateway.recognition.report import Question, Report, answer
from gateway.recognition.rules import RuleSet
from gateway.store.figures import Figures

if TYPE_CHECKING:
    from gateway.store import Store

PATH = "/recognition/figures"
_PARAMETERS = ("by", "institution", "from", "to", "format", "language")
_JSON, _CSV, _FHIR = "application/json", "text/csv", "application/fhir+json"
_SHORT = {"json": _JSON, "csv": _CSV, "fhir": _FHIR}
_ANY = {"*/*": _JSON, "application/*": _JSON, "text/html": _JSON, "text/*": _CSV}


def install(app: flask.Flask, settings: Settings, store: Store, rules: Callable[[], RuleSet]) -> Figures:
    """Add the two routes; ``rules``: the catalogue that holds now, for names. Who serves long may ``keep`` the figures.
    """
    figures = Figures(store, Counting(ZoneInfo(settings.timezone)))
    views = _Views(settings, store, figures, rules)
    app.add_url_rule(PATH, "recognition-figures:ask", views.ask)
    app.add_url_rule(f"{PATH}/measure", "recognition-figures:measure", views.measure)
    return figures


class _Views:
    def __init__(self, settings: Settings, store: Store, figures: Figures, rules: Callable[[], RuleSet]) -> None:
        self._settings, self._store, self._figures, self._rules = settings, store, figures, rules
        self._zone = ZoneInfo(settings.timezone)

    def ask(self) -> Response:
        """The figures."""
        request = current()
        request.caller.require("r", "MeasureReport")
        wanted = media_type(request.headers.get("Accept", ""), request.args.get("format", ""))
        question = self._question(request)
        request.target = f"MeasureReport?by={question.by}&institution={question.institution or ''}"
        return self._response(request, answer(question, self._figures, self._rules()), wanted)

    def measure(self) -> Response:
        """The Measure that every MeasureReport names."""
        current().caller.require("r", "Measure")
        return Response([json.dumps(measure())], content_type=f"{_FHIR}; charset=utf-8")

    def _question(self, request: Request) -> Question:
        given = request.args
        for name in given:
            if name not in _PARAMETERS or len(given.getlist(name)) > 1:
                raise _bad(f"the parameters are {', '.join(_PARAMETERS)}, each once", name)
        today = datetime.now(self._zone).date()
        last = days_of(given["to"], "to")[1] if "to" in given else today
        first = days_of(given["from"], "from")[0] if "from" in given else last.replace(day=1)
        institution = self._visible(request.caller, given.get("institution") or None)
        if given.get("language", "en") not in LANGUAGES:
            raise _bad("language must be zh or en", "language")
        question = Question(given.get("by", "hospital"), first, last, institution)
        question.check()
        return question

    def _visible(self, caller: Caller, institution: str | None) -> str | None:
        """The hospital that is asked for; FORBIDDEN where another is the caller's, NOT_FOUND where there is none."""
        only = caller.sees("MeasureReport")
        if only is not None:
            if not only or institution not in (None, only):
                raise GatewayError(Category.FORBIDDEN, "this client sees the figures of its own institution only",
                                   "institution")
            return only
        if institution is not None and institution not in self._rules().institutions \
                and self._store.institution_number(institution) < 0:
            raise GatewayError(Category.NOT_FOUND, "there is no such hospital; `huren catalogue show` lists them",
                               "institution")
        return institution

    def _response(self, request: Request, report: Report, wanted: str) -> Response:
        if wanted == _JSON:
            return Response([json.dumps(to_json(report, self._settings.timezone))], content_type=_JSON)
        if wanted == _CSV:
            language = request.args.get("language") or language_of("", request.headers.get("Accept-Language") or "en")
            response = Response([to_csv(report, language)], content_type="text/csv; charset=utf-8; header=present")
            question = report.question
            name = f"figures-{question.by}-{question.first}-{question.last}.csv"
            response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
            return response
        return Response([json.dumps(measure_report(report))], content_type=f"{wanted}; charset=utf-8")


def media_type(accept: str, format_parameter: str = "") -> str:
    """How to answer: ``format`` wins over Accept; UNSUPPORTED (406) where nothing of it is ours."""
    if format_parameter:
        if format_parameter not in _SHORT:
            raise _bad("format must be json, csv or fhir", "format")
        return _SHORT[format_parameter]
    if not accept.strip():
        return _JSON
    weighed = []
    for place, part in enumerate(accept.split(",")):
        name, *parameters = (text.strip() for text in part.lower().split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        known = name if name in _SHORT.values() else _ANY.get(name)
        if known and re.fullmatch(r"[01](\.[0-9]{0,3})?", weight) and float(weight) > 0:
            weighed.append((-float(weight), place, known))
    if not weighed:
        raise GatewayError(Category.UNSUPPORTED, f"ask for {', '.join(_SHORT.values())}", "Accept", detail="accept")
    return min(weighed)[2]


def _bad(sentence: str, where: str) -> GatewayError:
    return GatewayError(Category.INVALID, sentence, where, detail="request")
