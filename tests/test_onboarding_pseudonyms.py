"""Examples with invented patients: nobody of the original is left, everything else is."""

from __future__ import annotations

import re
from pathlib import Path

import onboarding_world as world
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import hl7v2
from gateway.adapter import hospital_folders, load
from gateway.config import SHIPPED_ADAPTERS
from gateway.identity import normalised
from gateway.onboarding import samples
from gateway.onboarding.pseudonyms import Pseudonyms

HEAD = "MSH|^~\\&|A|LAB|||20260101||ORU^R01|1|P|2.5.1\r"
BY = Pseudonyms(b"secret")


def invented(text: str, by: Pseudonyms = BY) -> str:
    """The message rewritten."""
    made = by.message(hl7v2.parse((HEAD + text).encode()))
    assert made is not None
    return made.decode()


def test_the_people_of_a_message_are_replaced() -> None:
    """Patient, next of kin, insured, doctors, addresses, telephones, numbers and birthdays."""
    made = invented("PID|1|55501|66602^^^H^MR~11010519491231002X^^^MPS^NNCHN||欧阳^震华~OUYANG^ZHENHUA||19491231|F|||"
                    "朝阳路5号^^北京^北京^100020^CN||01088887777~^PRN^Internet^oy@mail.example|||||V77703|11010519491231002X\r"
                    "NK1|1|欧阳小明|SON|朝阳路5号|13800138000\rPV1|1|I|W3^12^1||||D88^诸葛^亮|||||||||||V77703\r"
                    "OBR|1|P99904|F99905|CBC|||20260101||||||||||D88^诸葛^亮||||||||||F|||||||T9&令狐&冲\r"
                    "OBX|1|NM|HB||120|g/L|||||F|||||T9^令狐^冲\r"
                    "IN1|1|310|99^医保||||||||||||1|欧阳震华|SEL|19491231|朝阳路5号\r")
    for original in ("欧阳", "震华", "OUYANG", "ZHENHUA", "11010519491231002X", "66602", "55501", "V77703", "19491231",
                     "朝阳路", "01088887777", "13800138000", "oy@mail", "诸葛", "令狐", "P99904", "F99905"):
        assert original not in made
    for kept in ("^^^H^MR", "|F|||", "CBC", "|HB||120|g/L", "W3^12^1", "|310|99^医保|", "^CN|"):
        assert kept in made


def test_equal_people_stay_equal_and_others_stay_others() -> None:
    """The same patient in two messages is one patient; number, visit and order keep their links."""
    raws = world.messages(30)
    pairs = [(hl7v2.parse(raw, "gb18030"), hl7v2.parse(BY.message(hl7v2.parse(raw, "gb18030")) or b"", "gb18030"))
             for raw in raws]
    for place, at in (("PID", 3), ("PID", 5), ("OBR", 2), ("OBR", 16), ("PV1", 7)):
        seen = {(old.first(place).get(at), new.first(place).get(at)) for old, new in pairs}  # type: ignore[union-attr]
        assert len({old for old, _ in seen}) == len({new for _, new in seen}) == len(seen)


def test_an_identity_card_number_stays_valid_and_agrees_with_the_birthday() -> None:
    """Check digit, sex and the year are right; the birthday in PID-7 is the number's."""
    made = hl7v2.parse(invented("PID|1||11010519491231002X^^^^NNCHN||王||19491231\r").encode()).first("PID")
    assert made is not None
    number = made.get(3)
    assert normalised(number) == number != "11010519491231002X"
    assert number[6:14] == made.get(7) and made.get(7)[:4] == "1949" and int(number[16]) % 2 == 0


def test_a_text_that_repeats_the_patient_is_rewritten() -> None:
    """Names, numbers, identity cards and mobile telephones in results, notes and Z-segments."""
    made = invented("PID|1||6660212||欧阳^震华\rOBR|1|P1|F1|X\rOBX|1|TX|R||患者欧阳震华(6660212)电话13800138000\r"
                    "NTE|1||证件11010519491231002X 欧阳震华\rZPI|欧阳震华|6660212\r")
    for original in ("欧阳震华", "6660212", "13800138000", "11010519491231002X"):
        assert original not in made
    assert "患者" in made and "电话" in made


def test_documents_are_emptied() -> None:
    """What an ED encloses is gone, its kind stays."""
    made = invented("PID|1||6660212||王\rOBR|1|P1|F1|X\rOBX|1|ED|R||^AP^PDF^Base64^JVBERi0xLjQK\r")
    assert "^AP^PDF^Base64^cmVtb3ZlZA==" in made


def test_what_cannot_be_freed_is_not_given_back() -> None:
    """An original that stands where nothing is rewritten stops the message: here the header names the patient."""
    text = "MSH|^~\\&|欧阳震华|LAB|||20260101||ORU^R01|1|P|2.5.1\rPID|1||1||欧阳震华\r"
    made = BY.message(hl7v2.parse(text.encode()))
    assert made is None or "欧阳震华" not in made.decode()


def test_another_secret_gives_other_people() -> None:
    """Nobody can look a name up in a table of all names without the secret."""
    text = "PID|1||6660212||欧阳震华\r"
    assert invented(text) == invented(text) != invented(text, Pseudonyms(b"other"))


@given(st.text(st.sampled_from("0123456789ABab-/ "), min_size=1, max_size=20))
def test_a_number_keeps_its_form(text: str) -> None:
    """Digits by digits, everything else as it was; where there is no digit, letters by letters."""
    def form(number: str) -> str:
        return re.sub(r"\d", "9", number) if any(c.isdigit() for c in text) else re.sub(r"[A-Za-z]", "A", number)

    assert form(BY.number(text)) == form(text) or normalised(text)


CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"


def test_of_public_messages_nobody_is_left() -> None:
    """Hundreds of messages by others: each is given back with its segments, and no name or number of its people."""
    if not CORPUS.exists():
        pytest.skip("the public messages are not here")
    places = {"PID": ((3, 1), (5, 1), (5, 2), (9, 1), (11, 1), (13, 1), (19, 1)), "NK1": ((2, 1), (5, 1)),
              "PV1": ((7, 1), (7, 2), (8, 2), (19, 1)), "OBR": ((16, 2),), "MRG": ((1, 1),), "IN1": ((16, 1), (49, 1))}
    found = samples.read([CORPUS]).messages
    assert len(found) > 300
    for sample in found:
        old = hl7v2.parse(sample.raw)
        raw = BY.message(old)
        assert raw is not None, sample.where
        made = raw.decode(old.codec if old.codec != "ascii" else "utf-8")
        assert [s.name for s in hl7v2.parse(raw).segments] == [s.name for s in old.segments], sample.where
        texts = {part.get(c) for name, of in places.items() for segment in old.all(name) for f, c in of
                 for part in segment.repetitions(f)}
        left = {t for t in texts if len(t) > 5 and re.search(rf"(?<!\w){re.escape(t)}(?!\w)", made)}
        assert left == set(), sample.where


EXAMPLES = [(folder, path) for folder in hospital_folders(SHIPPED_ADAPTERS)
            for path in sorted((folder / "examples").glob("*.hl7"))]


@pytest.mark.parametrize(("folder", "path"), EXAMPLES, ids=lambda p: p.stem)
def test_only_people_change(folder: object, path: object) -> None:
    """Of the demo hospitals' messages: the same segments with the same fields, the same tests and results."""
    source = load(folder).source  # type: ignore[arg-type]
    old = hl7v2.parse(path.read_bytes(), source.charset)  # type: ignore[attr-defined]
    made = BY.message(old)
    assert made is not None
    new = hl7v2.parse(made, source.charset)
    assert [(s.name, s.size) for s in new.segments] == [(s.name, s.size) for s in old.segments]
    names = {part.get(c) for pid in old.all("PID") for part in pid.repetitions(5) for c in (1, 2)} - {""}
    for name, fields in (("OBX", (2, 3, 5, 6, 7, 8, 11)), ("OBR", (4, 7, 25)), ("MSH", (3, 4, 9, 12, 18))):
        for one, other in zip(old.all(name), new.all(name), strict=True):
            for field in fields:
                sent = one.raw_field(field)
                if one.get(2) != "ED" and not any(n.casefold() in sent.casefold() for n in names):
                    assert sent == other.raw_field(field), (name, field)
    for one, other in zip(old.all("PID"), new.all("PID"), strict=True):
        assert one.get(3) == other.get(3) == "" or one.get(3) != other.get(3)
        assert one.raw_field(5) == other.raw_field(5) == "" or one.raw_field(5) != other.raw_field(5)
