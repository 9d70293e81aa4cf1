"""Pictures of a line's earlier results: which there are, and each as PNG or JPEG. Who may see the line may see them.

Nothing else is reachable here: an image is shown only when its study is named by a report that the line's reminder
shows. Each answer is audited with the person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import flask

from gateway.edges.http.exchange import Request, Response, current
from gateway.edges.http.interactions import text_of_row
from gateway.edges.http.timeline import label
from gateway.errors import Category, GatewayError
from gateway.fhir import json
from gateway.recognition.service import Recognition
from gateway.store.model import Instance

if TYPE_CHECKING:
    from gateway.store import Store

#: Series of these modalities hold no picture (PS3.3 C.7.3.1.1.1).
_NO_PICTURES = frozenset(("SR", "KO", "PR", "DOC", "REG", "RTPLAN", "RTSTRUCT", "RWV", "FID", "PLAN", "AU", "ECG"))
_SIZE = 512
_MULTI_FRAME = 24  # a series of more objects than this is none of multi-frame objects
_KEPT = "private, max-age=3600"


def install(app: flask.Flask, store: Store, recognition: Recognition) -> None:
    """Add ``/recognition/lines/<line>/images`` and the images below it."""
    views = _Images(store, recognition)
    app.add_url_rule("/recognition/lines/<line_id>/images", "recognition:images", views.list)
    app.add_url_rule("/recognition/lines/<line_id>/images/<sop_instance_uid>", "recognition:image", views.image)


@dataclass(frozen=True, slots=True)
class _Study:
    """An ImagingStudy that a report of the line names."""

    report: str
    institution: str
    study_instance_uid: str
    resource: dict[str, Any]


class _Images:
    def __init__(self, store: Store, recognition: Recognition) -> None:
        self._store = store
        self._recognition = recognition

    def list(self, line_id: str) -> Response:
        """The series of the studies, each with its images in order."""
        request = current()
        found = [_series_of(study, series) for study in self._studies(request, line_id)
                 for series in study.resource.get("series", ())]
        shown = [series for series in found if series["instances"] and series["modality"] not in _NO_PICTURES]
        for series in shown:
            self._count_frames(series)
        return Response([json.dumps({"series": shown})], content_type="application/json")

    def _count_frames(self, series: dict[str, Any]) -> None:
        """Frames by the objects' headers, in short series only: a long one has a frame an object."""
        for one in series["instances"] if len(series["instances"]) <= _MULTI_FRAME else ():
            instance = self._store.instance(one["uid"], series["institution"])
            one["frames"] = max(1, int((instance.facts if instance else {}).get("NumberOfFrames") or 1))

    def image(self, line_id: str, sop_instance_uid: str) -> Response:
        """One image: ``size``, ``frame``, ``center`` and ``width``."""
        request = current()
        how = _asked(request)
        instance = self._instance(request, line_id, sop_instance_uid)
        tag = f'"{instance.digest.hex()[:24]}-{"-".join(str(how.get(name, "")) for name in _PARAMETERS)}"'
        if tag in request.headers.get("If-None-Match", ""):
            response = Response([b""], 304)
        else:
            from gateway.imaging.render import MAX_BYTES, render  # NumPy and Pillow, only where images are looked at

            if instance.size > MAX_BYTES:
                raise GatewayError(Category.INVALID, "the object is larger than what is drawn here", detail="request")
            picture = render(self._store.objects.get(instance.object_key), **how)
            response = Response([picture.content], content_type=picture.media_type)
            response.headers["X-Frames"] = str(picture.frames)
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = _KEPT
        response.headers["Vary"] = "Authorization, Origin"
        return response

    # ---------------------------------------------------------------- what the line shows

    def _studies(self, request: Request, line_id: str) -> Iterator[_Study]:
        """The studies of the reports that the line's reminder shows; FORBIDDEN, NOT_FOUND as the line says.

        They are another hospital's: the reminder allows it, and the audit names the person.
        """
        request.target = f"images of order-line/{line_id}"
        for report_id, row in self._recognition.studies(line_id, request.caller):
            if row.person and row.person not in request.persons:
                request.persons = (*request.persons, row.person)
            study: dict[str, Any] = json.loads(text_of_row(row))
            uid = next((i["value"].removeprefix("urn:oid:") for i in study.get("identifier", ())
                        if i.get("system") == "urn:dicom:uid"), "")
            yield _Study(report_id, row.institution, uid, study)

    def _instance(self, request: Request, line_id: str, sop_instance_uid: str) -> Instance:
        for study in self._studies(request, line_id):
            instance = self._store.instance(sop_instance_uid, study.institution)
            if instance is not None and instance.study_instance_uid == study.study_instance_uid:
                return instance
        raise GatewayError(Category.NOT_FOUND, "this line's results hold no such image", "image")


def _series_of(study: _Study, series: dict[str, Any]) -> dict[str, Any]:
    instances = sorted(series.get("instance", ()), key=lambda one: (one.get("number", 0), one["uid"]))
    return {"uid": series["uid"], "report": study.report, "institution": study.institution,
            "modality": series["modality"].get("code", ""),
            "description": series.get("description") or label(series.get("bodySite")),
            "instances": [{"uid": one["uid"], "number": one.get("number", 0), "frames": 1} for one in instances]}


_PARAMETERS = ("size", "frame", "center", "width")


def _asked(request: Request) -> dict[str, Any]:
    """The parameters of ``render``; INVALID where one is no number or unknown."""
    found: dict[str, Any] = {"size": _SIZE, "frame": 1}
    for name, text in request.args.items():
        if name not in _PARAMETERS:
            raise GatewayError(Category.INVALID, f"an image has {', '.join(_PARAMETERS)}", "address", detail="request")
        try:
            found[name] = int(text) if name in ("size", "frame") else float(text)
        except ValueError:
            raise GatewayError(Category.INVALID, "must be a number", name, detail="request") from None
    return found
