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
instances: [{uid, number, frames, rows, columns, center, width}]}]}``; one image is ``…/images/<SOP Instance UID>?size=96``
(``center``, ``width``: the window in units of the modality; ``frame`` from 1).

``POST /recognition/decisions`` takes ``{"action": "view" | "recognise" | "not_recognise" | "revoke", "line", "doctor",
"key", "reason", "text", "explained", "decision", "via": "widget"}`` and answers ``{line, state, decision, changed}``; 409
where a colleague was first. ``GET /recognition/reminders?institution=&patient=&doctor=&encounter=`` answers
``{"reminders": [{line*, state, verdict, interruptive, blocking, order: {…}, results: [{institution_zh, institution_en,
time, name_zh, name_en}]}]}``. A card of ``/cds-services/recognition`` says the same of its lines in
``extension["http://huren.example/fhir/cds-hooks/lines"]``: a list of those reminders.
"""
