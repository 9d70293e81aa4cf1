"""A version of the catalogue as a FHIR Library: its tables are the attachments (library.html). Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from gateway.recognition.tables import TABLES, Faults, Head, head_of
from gateway.source import Resource
from gateway.terminology import BASE

TYPE_SYSTEM = f"{BASE}/CodeSystem/library-type"
TYPE = "recognition-catalogue"
URL = f"{BASE}/Library/recognition-catalogue"
PREFIX = "recognition-catalogue-"
TSV = "text/tab-separated-values"
SHIPPED = "Ships with the program."  # Library.purpose of a version that the program itself has put here


def library(head: Head, files: Mapping[str, bytes], *, shipped: bool = False) -> Resource:
    """The Library of a version; its id is made of the version's name."""
    resource: Resource = {
        "resourceType": "Library", "id": PREFIX + head.version, "url": URL, "version": head.version,
        "name": "RecognitionCatalogue", "status": "active",
        "type": {"coding": [{"system": TYPE_SYSTEM, "code": TYPE}]}}
    if head.title:
        resource["title"] = head.title
    if shipped:
        resource["purpose"] = SHIPPED
    resource["effectivePeriod"] = {"start": head.effective.isoformat()}
    if head.base:
        resource["relatedArtifact"] = [{"type": "depends-on", "resource": f"{URL}|{head.base}"}]
    content = [{"contentType": f"{TSV};charset=UTF-8", "data": base64.b64encode(files[name]).decode(), "title": name}
               for name in TABLES if name in files]
    return resource | {"content": content} if content else resource


def is_catalogue(resource: Mapping[str, Any]) -> bool:
    """Whether a resource is, or by its id or URL wants to be, a version of the catalogue."""
    if resource.get("resourceType") != "Library":
        return False
    if str(resource.get("id", "")).startswith(PREFIX) or resource.get("url") == URL:
        return True
    return _of_our_type(resource)


def _of_our_type(resource: Mapping[str, Any]) -> bool:
    """Also for a resource that nobody has checked yet."""
    concept = resource.get("type")
    codings = concept.get("coding") if isinstance(concept, dict) else None
    return isinstance(codings, list) and any(
        isinstance(coding, dict) and coding.get("system") == TYPE_SYSTEM and coding.get("code") == TYPE
        for coding in codings)


def head_in(resource: Mapping[str, Any], faults: Faults) -> Head | None:
    """What the Library says of the version; None, and the faults, where that is missing or wrong."""
    if not _of_our_type(resource):
        faults.add("Library.type", f"type must be {TYPE} of {TYPE_SYSTEM}: this id and URL are the catalogue's")
    if resource.get("url") != URL:
        faults.add("Library.url", f"url must be {URL}")
    if resource.get("status") != "active":
        faults.add("Library.status", "status must be active; a draft is not loaded")
    bases = [str(artifact["resource"]).removeprefix(f"{URL}|") for artifact in resource.get("relatedArtifact", ())
             if artifact.get("type") == "depends-on" and str(artifact.get("resource", "")).startswith(f"{URL}|")]
    if len(bases) > 1:
        faults.add("Library.relatedArtifact", "a version has one base at most")
    period = resource.get("effectivePeriod", {})
    if "end" in period:
        faults.add("Library.effectivePeriod.end", "a version holds until the next one; leave the end out")
    before = len(faults.issues)
    head = head_of(resource.get("version", ""), period.get("start"), resource.get("title", ""), (bases or [""])[0],
                   "Library", faults)
    if head is None or len(faults.issues) > before:
        return None
    return head


def files_in(resource: Mapping[str, Any], faults: Faults) -> dict[str, bytes]:
    """The tables in a Library, by file name."""
    files: dict[str, bytes] = {}
    for index, content in enumerate(resource.get("content", ())):
        where, name = f"Library.content[{index}]", content.get("title", "")
        if name not in TABLES:
            faults.add(where, f"title must name a table of the catalogue: {', '.join(TABLES)}")
        elif name in files:
            faults.add(where, f"{name} stands twice")
        elif content.get("contentType", "").partition(";")[0].strip() != TSV:
            faults.add(where, f"contentType must be {TSV}")
        else:
            try:
                files[name] = base64.b64decode("".join(content.get("data", "").split()), validate=True)
            except (binascii.Error, ValueError):
                faults.add(where, "data must be base64")
    return files
