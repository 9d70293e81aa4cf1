"""The message profile of a hospital, and what is told when its messages change."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from math import comb
from pathlib import Path

import onboarding_world as world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.__main__ import main
from gateway.config import SHIPPED_ADAPTERS, load
from gateway.errors import GatewayError
from gateway.onboarding.drift import Drift, chance, drift
from gateway.onboarding.profile import Profile, from_json, merged, profile_of, to_json, to_tsv
from gateway.pipeline import Pipeline
from gateway.store import open_store

Run = Callable[..., tuple[int, str, str]]


def profiled(raws: list[bytes], charset: str | None = None) -> Profile:
    """The profile of messages."""
    return profile_of((raw, hl7v2.parse(raw, charset)) for raw in raws)


def of(found: list[Drift]) -> set[tuple[str, str]]:
    """What is certain, by kind and place."""
    return {(d.kind, d.where) for d in found if d.certain}


@cache
def usual() -> Profile:
    """What the hospital's messages are like."""
    return profiled(world.messages(120), "gb18030")


def changed(edit: Callable[[str], str], count: int = 60, seed: int = 8) -> list[Drift]:
    """The drift of as many other messages of the same hospital, after an edit of their text."""
    raws = [edit(raw.decode("gb18030")).encode("gb18030") for raw in world.messages(count, seed, start=1000)]
    return drift(usual(), profiled(raws, "gb18030"))


SEGMENT = st.builds(lambda name, fields: "|".join([name, *fields]),
                    st.sampled_from(("PID", "OBR", "OBX", "NTE", "ZZZ")),
                    st.lists(st.sampled_from(("", "1", "a^b", "F", "x~y", '""', "^c", "2026")), max_size=12))
HEAD = "MSH|^~\\&|A|LAB|||2026||ORU^{}|1|P|2.5.1"
MESSAGE = st.builds(lambda event, segments: "\r".join([HEAD.format(event), *segments]).encode(),
                    st.sampled_from(("R01", "R30")), st.lists(SEGMENT, max_size=8))
MESSAGES = st.lists(MESSAGE, min_size=1, max_size=12)


@given(MESSAGES)
@settings(max_examples=150)
def test_messages_do_not_drift_from_their_own_profile(raws: list[bytes]) -> None:
    """Whatever was sent: compared with itself, in any order, nothing is told."""
    assert drift(profiled(raws), profiled(raws[::-1])) == []


@given(MESSAGES, MESSAGES)
@settings(max_examples=150)
def test_what_is_new_is_always_told(before: list[bytes], after: list[bytes]) -> None:
    """Each segment, field and component that no message of its type had before is told, or its whole is."""
    known, now = profiled(before), profiled(after)
    told = {(d.kind, d.where) for d in drift(known, now)}
    for name, of_type in now.types.items():
        if name not in known.types:
            assert ("new type", name) in told
            continue
        for place in of_type.places.keys() - known.types[name].places.keys():
            whole = place.rpartition(".")[0] or place.rpartition("-")[0]
            kind = "component" if "." in place else "field" if "-" in place else "segment"
            assert whole and whole not in known.types[name].places or (f"new {kind}", f"{name} {place}") in told


@given(MESSAGES, MESSAGES)
def test_two_profiles_together_are_one_of_all_messages(one: list[bytes], other: list[bytes]) -> None:
    """`--add` counts as if everything had been read at once; only held-back values may differ."""
    both, whole = merged(profiled(one), profiled(other)), profiled(one + other)
    assert (both.messages, both.types) == (whole.messages, whole.types)
    assert (both.codes, both.having) == (whole.codes, whole.having)


@given(MESSAGES)
def test_a_profile_survives_its_file(raws: list[bytes]) -> None:
    """Written and read it is the same; written again, the same bytes."""
    made = profiled(raws)
    assert from_json(to_json(made)) == made and to_json(from_json(to_json(made))) == to_json(made)


@given(st.integers(1, 25), st.integers(1, 25), st.data())
def test_the_chance_is_fishers(n: int, m: int, data: st.DataObject) -> None:
    """Against the definition: the share of all tables with these margins that are at most as likely."""
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    ways = [comb(n, x) * comb(m, k + j - x) for x in range(max(0, k + j - m), min(n, k + j) + 1)]
    mine = comb(n, k) * comb(m, j)
    assert chance((k, n), (j, m)) == pytest.approx(sum(w for w in ways if w <= mine) / sum(ways), abs=1e-6)


def test_the_chance_falls_with_the_evidence() -> None:
    """The same rates over more messages are less likely chance; large counts take no time."""
    values = [chance((size, size), (0, size)) for size in (1, 2, 5, 50, 5000)]
    assert all(a > b for a, b in pairwise(values)) and values[0] == 1.0


def test_another_day_of_the_same_hospital_is_no_drift() -> None:
    """Sixty later messages with the same habits: nothing certain."""
    assert of(changed(lambda text: text)) == set()


@pytest.mark.parametrize("seed", range(20, 40))
def test_false_alarms_are_rare(seed: int) -> None:
    """Twenty more such days: not one alarm."""
    assert of(changed(lambda text: text, seed=seed)) == set()


CHANGES: dict[str, tuple[Callable[[str], str], set[tuple[str, str]]]] = {
    "a new segment": (lambda t: t + "ZXX|1\r", {("new segment", "ORU^R01 ZXX")}),
    "a field used": (lambda t: t.replace("||LAB|", "||LAB|", 1).replace("|F|||", "|F||E|"),
                     {("new field", "ORU^R01 OBX-13")}),
    "a field gone": (lambda t: re.sub(r"\|\|139\d+", "", t), {("vanished field", "ORU^R01 PID-13")}),
    "a segment gone": (lambda t: re.sub(r"PV1[^\r]*\r", "", t), {("vanished segment", "ORU^R01 PV1")}),
    "a flag of another kind": (lambda t: t.replace("↑", "HIGH"),
                               {("new value", "OBX-8 'HIGH'"), ("vanished value", "OBX-8 '↑'")}),
    "a component": (lambda t: t.replace("^^^TTYY^MR", "^^^TTYY^MR^X"), {("new component", "ORU^R01 PID-3.6")}),
    "another version": (lambda t: t.replace("|2.4\r", "|2.5.1\r"),
                        {("new value", "MSH-12 '2.5.1'"), ("vanished value", "MSH-12 '2.4'")}),
    "times with an offset": (lambda t: re.sub(r"HRP\|(\d{14})", r"HRP|\1+0800", t),
                             {("new value", "MSH-7 offset '+0800'"), ("vanished value", "MSH-7 offset 'none'")}),
    "another unit of a test": (lambda t: t.replace("U03^umol/L", "U03^mg/dL"),
                               {("unit", "OBX-3 0203")}),
    "a code used anew": (lambda t: t.replace("0201^谷丙转氨酶", "0201^肌酐"), {("name", "OBX-3 0201")}),
    "repeating": (lambda t: t.replace("|9001^", "|9001^").replace("^MR||", "^MR~X^^^TTYY^MR||"),
                  {("new repetition", "ORU^R01 PID-3")}),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_told_by_its_place(what: str) -> None:
    """Exactly what changed in the sender's program is certain, and nothing else."""
    edit, wanted = CHANGES[what]
    assert of(changed(edit)) == wanted


def test_another_type_and_another_charset_are_told() -> None:
    """Orders where results came alone; UTF-8 where GB 18030 came."""
    known = profiled(world.messages(60), "gb18030")
    others = [raw.decode("gb18030").replace("ORU^R01", "ORM^O01").encode() for raw in world.messages(60, 9)]
    assert {("new type", "ORM^O01"), ("vanished type", "ORU^R01"), ("new value", "charset 'utf-8'"),
            ("vanished value", "charset 'gb18030'")} <= of(drift(known, profiled(others)))


def test_more_messages_without_chinese_are_no_drift() -> None:
    """ASCII fits every character set: how many messages need no other says nothing of the sender's program."""
    known = profiled(world.messages(60), "gb18030")
    plain = [re.sub(rb"[\x80-\xff].", b"x", raw).replace(b"\xa3", b"") for raw in world.messages(50, 9)]
    now = profiled([*plain, *world.messages(10, 10)], "gb18030")
    assert now.values["charset"]["ascii"] >= 50
    assert not [d for d in drift(known, now) if d.where.startswith("charset")]


def test_a_single_stray_field_may_be_chance() -> None:
    """Seen once in sixty messages, it is told, but not as certain."""
    stray = iter([True])
    found = changed(lambda t: t.replace("|F|||", "|F||E|") if next(stray, False) else t)
    assert [(d.kind, d.where, d.certain) for d in found] == [("new field", "ORU^R01 OBX-13", False)]


def test_new_codes_are_one_line() -> None:
    """A hundred new codes do not bury the rest."""
    known = profiled(world.messages(60), "gb18030")
    raws = [raw.replace(b"|0101^", f"|8{n:03}^".encode()) for n, raw in enumerate(world.messages(60, 9))]
    [told] = [d for d in drift(known, profiled(raws, "gb18030")) if d.kind == "code"]
    assert told.where == "OBX-3" and told.sentence.startswith("20 local code(s) never came before: 8000, 8003")


def test_a_profile_holds_no_patient() -> None:
    """Neither the file nor the table for people holds a name, a number, an address or a result."""
    made = profiled(world.messages(40), "gb18030")
    told = to_json(made).decode() + "\n".join(to_tsv(made))
    people = {surname + given for surname in world.SURNAMES for given in world.GIVEN}
    assert {word for word in people | {"赤城", "13957", "88000", "陈医生"} if word in told} == set()


def test_a_name_where_a_code_belongs_is_held_back() -> None:
    """What one patient alone has is counted as others; a second patient makes it a code."""
    def flagged(patient: str, flag: str) -> bytes:
        return f"MSH|^~\\&|A|B|||2026||ORU^R01|{patient}|P|2.5\rPID|1||{patient}\rOBX|1|ST|K||1|||{flag}".encode()

    sent = [("1", "欧阳震华"), ("1", "欧阳震华"), ("2", "偏高"), ("3", "偏高"), ("4", "H")]
    made = profiled([flagged(*line) for line in sent])
    assert made.values["OBX-8"] == Counter({"(others)": 2, "偏高": 2, "H": 1})


# -------------------------------------------------------------------------------------------------- commands

@pytest.fixture
def huren(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in this process with ``tmp_path/adapters`` as its hospitals: status, output, error output."""
    for name in [n for n in os.environ if n.startswith("HUREN_")]:
        monkeypatch.delenv(name)
    (tmp_path / "adapters").mkdir()
    monkeypatch.setenv("HUREN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HUREN_ADAPTERS", str(tmp_path / "adapters"))

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def test_drift_of_files(huren: Run, tmp_path: Path) -> None:
    """Exit status 1 and a line for each change; a profile made anew knows them."""
    sent = world.write(tmp_path / "sent", world.messages())
    later = world.write(tmp_path / "later", [raw + b"ZXX|1\r" for raw in world.messages(60, 9, start=500)])
    assert huren("adapter", "new", "tiantai", "--samples", sent)[0] == 0
    status, out, err = huren("adapter", "drift", "tiantai", later)
    assert status == 1 and "new segment\tORU^R01 ZXX\tnever used before: now in 60 of 60 messages" in out
    assert "1 change(s) in 60 messages against a profile of 60" in err
    assert huren("adapter", "profile", "tiantai", later, "--add")[0] == 0
    status, out, _ = huren("adapter", "profile", "tiantai")
    assert status == 0 and "ORU^R01\tZXX\t\t60\t50%" in out
    status, out, _ = huren("adapter", "drift", "tiantai", later)
    assert status == 1 and "segment rate\tORU^R01 ZXX\twas in 50%" in out  # now it is known, and still another rate
    assert huren("adapter", "profile", "tiantai", later)[0] == 0
    assert huren("adapter", "drift", "tiantai", later)[0] == 0


def test_drift_of_what_arrived(huren: Run, tmp_path: Path) -> None:
    """The inbox is read afterwards, this hospital's messages alone, also those in quarantine; doctor tells of it."""
    sent = world.write(tmp_path / "sent", world.messages())
    huren("adapter", "new", "tiantai", "--samples", sent)
    here = load({"HUREN_DATA": str(tmp_path / "data"), "HUREN_ADAPTERS": f"{tmp_path / 'adapters'}:{SHIPPED_ADAPTERS}"})
    store = open_store(here, True)
    try:
        pipeline = Pipeline(here, store)
        for raw in world.messages(40, 9, status="F", flag_high="HIGH", start=500):
            pipeline.receive_hl7(raw, "127.0.0.1:9")
        other = SHIPPED_ADAPTERS / "renmin" / "examples" / "01-cbc-final.hl7"
        pipeline.receive_hl7(other.read_bytes(), "127.0.0.1:9")
    finally:
        store.close()
    status, out, err = huren("adapter", "drift", "tiantai", "--inbox")
    assert status == 1 and "OBX-8 'HIGH'" in out and "OBR-25 'F'" in out and "in 40 messages" in err
    status, out, err = huren("adapter", "drift", "--inbox")
    assert status == 1 and "tiantai:" in out and "OBX-8 'HIGH'" in out and "in 40 messages" in err
    status, out, _ = huren("doctor")
    assert "drift" in out and "huren adapter drift tiantai --inbox" in out


def test_drift_without_messages_or_profile(huren: Run, tmp_path: Path) -> None:
    """Each says what to do."""
    sent = world.write(tmp_path / "sent", world.messages(5))
    huren("adapter", "new", "bare")
    status, _, err = huren("adapter", "drift", "bare", sent)
    assert status == 1 and "has no profile.json" in err
    huren("adapter", "new", "tiantai", "--samples", sent)
    assert huren("adapter", "drift", "tiantai")[0] == 2
    huren("migrate")
    status, _, err = huren("adapter", "drift", "tiantai", "--inbox")
    assert status == 1 and "no message of tiantai" in err


def test_a_broken_profile_says_so() -> None:
    """INVALID, and how to make it anew."""
    for data in (b"", b"{}", b'{"format": 99}', b"[]"):
        with pytest.raises(GatewayError, match="huren adapter profile"):
            from_json(data)
