"""What the pipeline does with a conversion beside its resources: documents, amendments, remarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapter import Adapter, load_all
from gateway.caller import GATEWAY
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import json as fhir_json
from gateway.fhir.resource import text
from gateway.pipeline import Pipeline, document_key
from gateway.source import Amendment, Change, Conversion, Document, Remark, Resource
from gateway.store import Store
from gateway.store.model import Put, Receipt, Unit


@pytest.fixture
def pipeline(store: Store, tmp_path: Path) -> Pipeline:
    """A pipeline that takes every sender."""
    return Pipeline(Settings(data=tmp_path), store, load_all([SHIPPED_ADAPTERS], "generic"))


def _message(control_id: str) -> bytes:
    return f"MSH|^~\\&|A|B|||20260101||ADT^A01|{control_id}|P|2.5\r".encode()


def _receive(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, conversion: Conversion,
             control_id: str = "1") -> Receipt:
    monkeypatch.setattr(Adapter, "convert_hl7", lambda *_: conversion)
    return pipeline.receive_hl7(_message(control_id), "")


def _patient(**elements: object) -> Resource:
    return {"resourceType": "Patient", "id": "p1", "meta": {"source": "urn:huren:generic-b"},
            "identifier": [{"system": "urn:huren:generic-b:patient", "value": "7"}], **elements}


def _stored(store: Store, kind: str, resource_id: str) -> Resource | None:
    row = store.read(kind, resource_id, GATEWAY)
    return None if row is None else fhir_json.loads(
        text(row.resource_type, row.id, row.version, row.updated, row.tail))


def test_an_amendment_gets_what_is_stored_and_writes_what_it_returns(
        pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """None where nothing is stored; later the stored resource, of which the rest is kept."""
    seen = []

    def close(current: Resource | None) -> Resource:
        seen.append(current)
        return {**(current or _patient(gender="male")), "active": False}

    conversion = Conversion(amendments=[Amendment("Patient", "p1", close)])
    for control_id in ("1", "2"):
        receipt = _receive(pipeline, monkeypatch, conversion, control_id)
        assert (receipt.category, receipt.resources) == (None, 1)
    kept = _stored(pipeline.store, "Patient", "p1")
    assert seen[0] is None and seen[1]["gender"] == "male"
    assert kept is not None and kept["active"] is False
    assert kept["meta"]["versionId"] == "1"  # the second time changed nothing


def test_an_amendment_that_returns_nothing_leaves_the_resource_alone(
        pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is stored; there is no resource."""
    receipt = _receive(pipeline, monkeypatch, Conversion(amendments=[Amendment("Patient", "p1", lambda _: None)]))
    assert receipt.category is None and _stored(pipeline.store, "Patient", "p1") is None


def test_an_amendment_is_made_again_when_somebody_was_quicker(
        pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's change between reading and writing is not lost."""
    pipeline.store.write(Unit([Put(_patient(gender="male"), "b")]), GATEWAY)
    calls = []

    def amend(current: Resource | None) -> Resource:
        assert current is not None
        calls.append(current)
        if len(calls) == 1:
            pipeline.store.write(Unit([Put(_patient(gender="female"), "b")]), GATEWAY)
        return {**current, "active": False}

    receipt = _receive(pipeline, monkeypatch, Conversion(amendments=[Amendment("Patient", "p1", amend)]))
    kept = _stored(pipeline.store, "Patient", "p1")
    assert receipt.category is None and len(calls) == 2
    assert kept is not None and (kept["gender"], kept["active"]) == ("female", False)


def test_an_amendment_may_refuse_the_whole_message(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOT_FOUND goes to quarantine, and nothing of the message is stored."""
    def unknown(current: Resource | None) -> Resource:
        raise GatewayError(Category.NOT_FOUND, "we do not know this patient; send A28 first", "MRG-1")

    conversion = Conversion([Change({"resourceType": "Organization", "id": "o1", "name": "X"})],
                            amendments=[Amendment("Patient", "p1", unknown)])
    receipt = _receive(pipeline, monkeypatch, conversion)
    assert (receipt.category, receipt.where) == ("not-found", "MRG-1")
    assert _stored(pipeline.store, "Organization", "o1") is None


def test_documents_are_in_the_object_store_when_their_resources_are(
        pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are there before the unit is written: a Binary never names what is not there."""
    there = []
    write = pipeline.store.write

    def watched(unit: Unit, caller: object) -> object:
        there.append(pipeline.store.objects.get(document_key("generic-b", "b1")))
        return write(unit, caller)

    monkeypatch.setattr(pipeline.store, "write", watched)
    conversion = Conversion([Change({"resourceType": "Binary", "id": "b1", "contentType": "application/pdf"})],
                            documents=[Document("b1", "application/pdf", b"%PDF-1.7")])
    receipt = _receive(pipeline, monkeypatch, conversion)
    assert receipt.category is None and there == [b"%PDF-1.7"]


def test_the_first_remark_goes_back_to_the_sender(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stored all the same; the others are counted in the sentence."""
    conversion = Conversion(remarks=[Remark("OBX-5", "kept as text"), Remark("PID-7", "left out")])
    receipt = _receive(pipeline, monkeypatch, conversion)
    assert (receipt.category, receipt.remark, receipt.remark_where) == (None, "kept as text (and 1 more)", "OBX-5")
