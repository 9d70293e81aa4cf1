"""Whether two Patients can be one person: names, sex and birth date as hospitals really write them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.recognition.people import conflict, doubtful, names


def text(*names: str) -> dict[str, Any]:
    """A Patient of these names, each as text."""
    return {"name": [{"text": name} for name in names]}


def parts(family: str, *given: str) -> dict[str, Any]:
    """A Patient whose name comes in parts."""
    return {"name": [{"family": family, "given": list(given)}]}


@pytest.mark.parametrize(("one", "other", "said"), [
    (text("王小明"), text("王小明"), ""),
    (text("王小明"), parts("王", "小明"), ""),
    (text("王 小明"), text("王小明 "), ""),
    (text("王小明"), text("王晓明"), "name"),
    (text("欧阳锋"), parts("欧阳", "锋"), ""),
    (text("Ｗａｎｇ　Ｘｉａｏ"), text("wang xiao"), ""),
    (parts("Wang", "Xiaoming"), text("Xiaoming Wang"), ""),
    (parts("Wang", "Xiao", "Ming"), text("WANG Xiaoming"), ""),
    (text("Wang Xiaoming"), text("王小明"), ""),
    (text("Wang Xiaoming"), text("Wang Xiaomin"), "name"),
    (text("王小明", "Wang Xiaoming"), text("Wang Xiaomin", "王小明"), ""),
    (text("王小明", "Wang Xiaoming"), text("Li Si"), "name"),
    (text("阿依古丽·买买提"), text("阿依古丽买买提"), ""),
    (parts("王"), parts("王"), ""),
    (parts("王"), text("李四"), "name"),
    (text(""), text("李四"), ""),
    ({}, text("李四"), ""),
    ({"gender": "male"}, {"gender": "female"}, "gender"),
    ({"gender": "male"}, {"gender": "unknown"}, ""),
    ({"gender": "other"}, {"gender": "female"}, ""),
    ({"birthDate": "1980-01-02"}, {"birthDate": "1980-01-02"}, ""),
    ({"birthDate": "1980-01-02"}, {"birthDate": "1980-01"}, ""),
    ({"birthDate": "1980"}, {"birthDate": "1980-01-02"}, ""),
    ({"birthDate": "1980-01-02"}, {"birthDate": "1980-02"}, "birthDate"),
    ({"birthDate": "1980-01-02"}, {"birthDate": "1980-01-03"}, "birthDate"),
    ({"birthDate": "1980-01-02"}, {}, ""),
])
def test_what_contradicts(one: dict[str, Any], other: dict[str, Any], said: str) -> None:
    """Only what both say is compared, and either way round."""
    assert (conflict(one, other), conflict(other, one)) == (said, said)


def test_a_family_name_alone_is_no_name_beside_a_whole_one() -> None:
    """Where a text says the whole name, the family name by itself is none."""
    assert names({"name": [{"text": "王小明", "family": "王"}]}) == {"王小明"}


def test_a_patient_that_was_merged_raises_no_doubt() -> None:
    """The hospital says who it is by the one that replaced it; that one still may."""
    order = {"gender": "male", "birthDate": "1980-01-02"}
    other = {"_institution": "a", "gender": "female", "birthDate": "1980-01-02"}
    link = {"other": {"reference": "Patient/p2"}, "type": "replaced-by"}
    assert doubtful(order, [other]) == {"a"}
    assert doubtful(order, [{**other, "active": False, "link": [link]}]) == set()
    assert doubtful(order, [{**other, "link": [{**link, "type": "replaces"}]}]) == {"a"}
