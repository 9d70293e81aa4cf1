"""Acknowledgements that come in: kept, no resource, no answer."""

from __future__ import annotations

import pytest
from support_source import make_source

from gateway import hl7v2
from gateway.adapter import load_all
from gateway.config import SHIPPED_ADAPTERS, Settings
from gateway.errors import Category, GatewayError
from gateway.pipeline import Pipeline
from gateway.store import Store


def _ack(kind: str = "ACK^R01^ACK", msa: str = "MSA|AA|X1") -> bytes:
    return f"MSH|^~\\&|HIS|H1|GW|R|20240102103000||{kind}|A1|P|2.5.1\r{msa}\r".encode()


@pytest.mark.parametrize("kind", ["ACK", "ACK^R01", "ACK^A01^ACK", "ACK^Q11", "MCF"])
def test_an_acknowledgement_becomes_nothing(kind: str) -> None:
    """Of any event, positive or not; a refusal is remarked; nothing is to be answered in the original mode."""
    raw = _ack(kind)
    made = hl7v2.convert(hl7v2.parse(raw), make_source())
    assert (made.changes, made.amendments, made.remarks) == ([], [], [])
    refused = hl7v2.convert(hl7v2.parse(_ack(kind, "MSA|AE|X1|no")), make_source())
    assert not refused.changes and [remark.where for remark in refused.remarks] == ["MSA-1"]
    asked = hl7v2.asked(raw, hl7v2.peek(raw))
    assert not asked.commit(True) and not asked.result(True) and not asked.result(False)


def test_an_acknowledgement_of_nothing_is_invalid() -> None:
    """Without MSA nobody knows what it is about."""
    with pytest.raises(GatewayError) as refused:
        hl7v2.convert(hl7v2.parse(_ack(msa="ERR|x")), make_source())
    assert (refused.value.category, refused.value.where) == (Category.INVALID, "MSA")


def test_an_acknowledgement_is_kept(settings: Settings, store: Store) -> None:
    """Stored in the inbox, without resources."""
    pipeline = Pipeline(settings, store, load_all([SHIPPED_ADAPTERS], "generic"))
    receipt = pipeline.receive_hl7(_ack(), "10.0.0.9:1")
    assert (receipt.category, receipt.resources, receipt.remark) == (None, 0, "")
    [row] = store.inbox("stored")
    assert row.message_type == "ACK^R01^ACK" and store.counts()["resources"] == {}


def test_a_type_that_is_not_taken_is_told_what_is() -> None:
    """The sentence names every type."""
    with pytest.raises(GatewayError) as refused:
        hl7v2.convert(hl7v2.parse(_ack("ZZZ^Z01")), make_source())
    assert refused.value.detail == "message-type"
    for name in ("ORU", "OUL", "ADT", "MDM", "SIU", "ORM^O01", "OML^O21", "OMI^O23", "OMG^O19", "DFT^P03"):
        assert name in refused.value.message
