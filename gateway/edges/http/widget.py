"""The plug-in ``<huren-recognition>``, its viewer page, and the JSON that both read.

``/recognition/widget.js`` is one file without patients' data: it is open and may be kept. The data come from the paths
of `gateway.edges.http.recognition` and `gateway.edges.http.images`, with the token of the session.

What the plug-in reads of ``GET /recognition/lines/<id>`` (every field may be missing or empty, except those marked *)::

    line*, state*, institution, number, verdict*, blocking, must_view, explained (whether it must be said), billed,
    order: {item, name_zh*, name_en, local, display, department, doctor, reference}
    codes, states, missing: [{item, name_zh, name_en}]
    preselected, reasons*: [{code, text_zh, text_en, needs_text}]
    decision: null | {id*, state, doctor, at, reason, text, explained}
    reports*: [{id, kind: "lab" | "imaging", title_zh, title_en, institution, institution_zh, institution_en,
                time (collection or acquisition, ISO 8601), issued, status, conclusion, flags,
                texts: [{name, text}],
                results: [{item, name_zh, name_en, value, unit, range, flag ("high", "critical-low" …), covers,
                           trend: [{time, value, institution_zh, institution_en}]}]}]

of ``GET /recognition/lines/<id>/images``: ``{"series": [{uid, description, modality, institution,
report (id), instances: [{uid, number, frames}]}]}``; one image is ``…/images/<SOP Instance UID>?size=96`` (``center``,
``width``: the window in units of the modality; ``frame`` from 1).

``POST /recognition/decisions`` takes ``{"action": "view" | "recognise" | "not_recognise" | "revoke", "line", "doctor",
"key", "reason", "text", "explained", "decision", "via": "widget"}`` and answers ``{line, state, decision, changed}``;
409 where a colleague was first. ``GET /recognition/reminders?institution=&patient=&doctor=&encounter=`` answers
``{"reminders": [{line*, state, verdict, interruptive, blocking, order: {…}, results: [{institution_zh, institution_en,
time, name_zh, name_en}]}]}``. A card of ``/cds-services/recognition`` says the same of its lines in
``extension["http://huren.example/fhir/cds-hooks/lines"]``: a list of those reminders.
"""

from __future__ import annotations

import gzip
import re
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import flask
import rjsmin

from gateway.config import Settings
from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.texts import language_of, texts

PATH = "/recognition/widget.js"
VIEW = "/recognition/view/"
_FILE = Path(__file__).parent / "static" / "widget.js"
#: The viewer's page draws on canvases and fetches from here only; a page that embeds the plug-in needs no more.
CSP = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; " \
      "form-action 'none'; frame-ancestors 'none'"


def install(app: flask.Flask, settings: Settings) -> None:
    """Add the script and the viewer's page; neither holds anything of a patient."""
    views = _Views(settings)
    app.add_url_rule(PATH, "widget:script", views.script)
    app.add_url_rule(VIEW + "<line_id>", "widget:view", views.view)


@lru_cache(maxsize=1)
def squeezed() -> bytes:
    """The plug-in as it is served: without comments and needless spaces, in the script and in its style."""
    head, start, rest = _FILE.read_text(encoding="utf-8").partition("const CSS = `")
    style, end, tail = rest.partition("`;")
    style = re.sub(r"\s*([{};,>])\s*", r"\1", style).replace(";}", "}").strip()
    return str(rjsmin.jsmin(head + start + style + end + tail)).encode()


class _Views:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._script = squeezed()
        self._packed = gzip.compress(self._script, 9, mtime=0)
        self._tag = f'"{blake2b(self._script, digest_size=8).hexdigest()}"'

    def script(self) -> Response:
        """The plug-in. Pages ask again within five minutes, so that all of them soon run a new version."""
        request = current()
        packs = "gzip" in request.headers.get("Accept-Encoding", "")
        response = Response([self._packed if packs else self._script], content_type="text/javascript; charset=utf-8")
        if packs:
            response.headers["Content-Encoding"] = "gzip"
        if request.headers.get("If-None-Match") == self._tag:
            response = Response([b""], 304)
        response.headers["ETag"] = self._tag
        response.headers["Cache-Control"] = "public, max-age=300"
        response.headers["Vary"] = "Accept-Encoding, Origin"
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # a workstation of another origin runs it
        response.headers["Access-Control-Allow-Origin"] = "*"  # module scripts are fetched with CORS; it is no secret
        return response

    def view(self, line_id: str) -> Response:
        """The viewer's page without data: its script fetches them with the session in the address's fragment."""
        return page(current(), "view.html", self._settings, line=line_id)


def page(request: Request, template: str, settings: Settings, **values: object) -> Response:
    """A page whose script talks to this gateway only."""
    language = language_of(request.args.get("lang", ""), request.headers.get("Accept-Language", ""))
    body = flask.render_template(template, t=texts(language), lang=language, demo=settings.demo, path=request.path,
                                 **values)
    response = Response([body.encode()], content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = CSP
    response.headers["Content-Language"] = "zh-CN" if language == "zh" else "en"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Vary"] = "Accept-Language"
    return response
