"""What a hospital's messages repeat is read once, and no message can tell."""

from __future__ import annotations

import copy
import gc
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import adapter, hl7v2
from gateway.errors import GatewayError
from gateway.hl7v2 import memory
from gateway.source import _IDS, Conversion, Resource, Source
from tests.support_source import OBR, make_source, resources, text

_OBX = ("OBX|1|NM|WBC^白细胞^L||9.8|10^9/L|3.5-9.5|H|||F|||20240102090000",
        "OBX|2|SN|HGB^血红蛋白^L||>^100|g/L|>90|Ü|||F|||20240102090000",
        "OBX|3|CE|ABO^血型^L^882-1^ABO group^LN||A^A型^L||||||F",
        "OBX|4|NM|X^x^L||1|g/L|||||F|||20240102|LAB^检验科^L|D1^王^医生|M1^仪器法^L|AN1^LIS|20240102|B1^手^L|||检验中心",
        "OBX|6|NM|Z^z^L||1|g/L|男18-60岁:1-2;女18-60岁:2-3;黄体期:3-4|N||A|F",
        "OBX|5|NM|Y^y^L||1|g/L|||||F|||20240102|LAB^检验科^L|D1^王^医生|M1^仪器法^L|AN1^LIS|20240102|B1^手^L|||检验中心",
        "SPM|1|||BLD^全血^HL70487|||M^m^L|S^s^L|||||||||20240102083000")


def _convert(source: Source, *segments: str) -> Conversion:
    return hl7v2.convert(hl7v2.parse(text(*segments).encode()), source)


def _spoil(value: Any) -> None:
    """Change everything that can be changed."""
    for part in list(value.values()) if isinstance(value, dict) else list(value):
        if isinstance(part, (dict, list)):
            _spoil(part)
    if isinstance(value, dict):
        for name in value:
            if isinstance(value[name], str):
                value[name] = "spoilt"
        value["spoilt"] = "spoilt"
    else:
        value.append("spoilt")


def test_a_changed_resource_does_not_change_the_next_message() -> None:
    """Whatever a reader does with the resources of one message, the same message gives the same resources again."""
    source = make_source(tables={"SPM-4": {"BLD": "WB"}})
    first = _convert(source, *_OBX)
    expected = copy.deepcopy([change.resource for change in first.changes])
    for change in first.changes:
        _spoil(change.resource)
    assert expected == [change.resource for change in _convert(source, *_OBX).changes]
    assert expected == [change.resource for change in _convert(
        make_source(tables=source.tables), *_OBX).changes]


def test_a_hook_does_not_reach_the_next_message(tmp_path: Path) -> None:
    """An ``after`` hook changes the resources in place; the next message's hook sees clean ones."""
    folder = tmp_path / "h1"
    folder.mkdir()
    (folder / "manifest.toml").write_text('[institution]\nid = "h1"\nname = "H"\ncode_system = "urn:huren:h1:item"\n',
                                          "utf-8")
    (folder / "hooks.py").write_text(
        "def after(resources, message):\n"
        "    for resource in resources:\n"
        "        if resource['resourceType'] == 'Observation':\n"
        "            resource['code']['coding'].append({'system': 'urn:x', 'code': 'seen'})\n"
        "            resource['code']['coding'][0]['display'] += '!'\n"
        "            for flag in resource.get('interpretation', []):\n"
        "                flag['text'] = flag.get('text', '') + '!'\n"
        "            for low_high in resource.get('referenceRange', []):\n"
        "                for end in ('low', 'high'):\n"
        "                    low_high.get(end, {})['unit'] = low_high.get(end, {}).get('unit', '') + '!'\n", "utf-8")
    hospital = adapter.load(folder)
    made: list[list[Resource]] = []
    for _ in range(3):
        conversion = hospital.convert_hl7(hospital.parse(text(*_OBX).encode()))
        made.append(copy.deepcopy([change.resource for change in conversion.changes]))
    assert made[0] == made[1] == made[2]
    observation = resources(conversion, "Observation")[0]
    assert ("白细胞!", "10^9/L!") == (observation["code"]["coding"][0]["display"],
                                   observation["referenceRange"][0]["low"]["unit"])


def test_a_hook_sees_no_resource_within_another(tmp_path: Path) -> None:
    """What a conversion puts into several resources is each one's own when a hook gets it: category, performer,
    subject, period, specimen, flags."""
    folder = tmp_path / "h1"
    folder.mkdir()
    (folder / "manifest.toml").write_text('[institution]\nid = "h1"\nname = "H"\ncode_system = "urn:huren:h1:item"\n',
                                          "utf-8")
    (folder / "hooks.py").write_text("def after(resources, message):\n    return resources\n", "utf-8")
    hospital = adapter.load(folder)
    obx = [f"OBX|{n}|NM|{code}^{code}^L||9.8|g/L|3-9|H|||F" for n, code in enumerate(("WBC", "RBC", "HGB"), 1)]
    sent = text(OBR.replace("080000||", "080000|20240102081000|", 1), *obx, _OBX[-1])
    conversion = hospital.convert_hl7(hospital.parse(sent.encode()))
    results = resources(conversion, "Observation")
    others = [change.resource for change in conversion.changes if change.resource not in results]
    clean = copy.deepcopy((results, others))
    assert {"effectivePeriod", "interpretation", "specimen", "category"} < results[2].keys()
    _spoil(results[0])
    assert clean[0][1:] == results[1:]
    for result in results[1:]:
        _spoil(result)
    assert clean[1] == others


def test_a_message_leaves_nothing_to_the_garbage_collector() -> None:
    """What a message was read into goes as soon as its conversion is done with: nothing of it is a circle."""
    source = make_source()
    conversion = _convert(source, *_OBX)
    gc.collect()
    gc.disable()
    try:
        conversion = _convert(source, *_OBX)
        assert len(conversion.changes) > 8
        del conversion
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_an_unmapped_code_is_counted_in_every_message() -> None:
    """The second message with a known field counts its unmapped code as the first did."""
    source = make_source()
    first, second = _convert(source, *_OBX), _convert(source, *_OBX)
    assert ["ABO", "X", "Z", "Y"] == [one.local for one in first.unmapped]
    assert first.unmapped == second.unmapped


def test_delimiters_are_part_of_what_is_remembered() -> None:
    """The same field means another thing where other delimiters are in use."""
    source, obx = make_source(), "OBX|1|ST|WBC^白细胞^L||x||||||F"
    caret = resources(_convert(source, obx), "Observation")[0]["code"]["coding"][-1]
    sent = text(obx).replace("^~\\&", "!~\\&", 1).replace("ORU^R01^ORU_R01", "ORU!R01!ORU_R01")
    mark = resources(hl7v2.convert(hl7v2.parse(sent.encode()), source), "Observation")[0]["code"]["coding"][-1]
    assert ("WBC", "WBC^白细胞^L") == (caret["code"], mark["code"])


def test_what_is_refused_is_refused_again() -> None:
    """A status that nobody knows names its own segment each time."""
    source = make_source()
    for at in (2, 3):
        good = [f"OBX|{n}|NM|WBC^白细胞^L||1|||||||F" for n in range(1, at)]
        with pytest.raises(GatewayError, match=f"OBX number {at}"):
            _convert(source, *good, f"OBX|{at}|NM|WBC^白细胞^L||1||||||Q")


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither invented codes nor invented delimiters make it grow, and a long field is not kept."""
    monkeypatch.setattr(memory, "_MOST", 10)
    monkeypatch.setattr(memory, "_MOST_DIALECTS", 2)
    source = make_source()
    for n in range(40):
        _convert(source, f"OBX|1|NM|C{n}^{n}^L||1|u{n}|{n}-{n + 1}|f{n}|||F|||202401020900{n:02}",
                 f"OBX|2|NM|X{'x' * 300}^long^L||1|||||||F")
    [held] = source.memory.values()
    for kind in held.__slots__:
        assert len(getattr(held, kind)) <= (20 if kind in ("said", "numbers") else 10), kind
    assert not any("xxx" in raw for _, raw in held.concepts)
    assert not any("xxx" in raw for sent in held.said for raw in sent)
    for codec in ("ASCII", "GB18030", "UNICODE UTF-8"):
        hl7v2.convert(hl7v2.parse(text(_OBX[0]).replace("UNICODE UTF-8", codec).encode(
            "gb18030" if codec == "GB18030" else "utf-8")), source)
    assert len(source.memory) <= 2


@given(st.text(st.characters(codec="utf-8")))
def test_ids_are_those_of_uuid5(identifier: str) -> None:
    """RFC 4122 name-based ids, as the library makes them."""
    source = make_source()
    assert str(uuid.uuid5(_IDS, f"h1|Observation|{identifier}")) == source.id_for("Observation", identifier)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_ids_of_many_parts_are_those_of_each(stem: str, rest: str) -> None:
    """What is alike is hashed once, and the id is the same: the whole's first 48 bits, then a UUID of version 8."""
    source, whole = make_source(), "01234567-89ab-5def-8123-456789abcdef"
    made = source.id_within(whole, "Observation", stem + rest)
    assert made == source.ids_within(whole, "Observation", stem)(rest)
    assert (uuid.UUID(made).version, whole[:13]) == (8, made[:13])
