"""Names and descriptions come out right, whatever the header says of its character set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.charset import decode_bytes, python_encoding

from gateway.imaging.charset import Charset, clean, codec_of, name_groups

WANG = "王^小东"
BOTH = "Wang^XiaoDong=王^小东"
IR58 = b"Wang^XiaoDong=\x1b$)A\xcd\xf5^\x1b$)A\xd0\xa1\xb6\xab="  # PS3.5 K.2

# bytes, (0008,0005) or None, the hospital's charset or None, what a person would read
PROBES = [
    ("gb18030", WANG.encode("gb18030"), "GB18030", None, WANG),
    ("gb18030 in the second group", BOTH.encode("gb18030"), "GB18030", None, BOTH),
    ("gb18030 of four bytes", "𠮷^小".encode("gb18030"), "GB18030", None, "𠮷^小"),
    ("gbk", WANG.encode("gbk"), "GBK", None, WANG),
    ("gbk under ISO 2022 GBK", WANG.encode("gbk"), "ISO 2022 GBK", None, WANG),
    ("gbk under GB2312", WANG.encode("gbk"), "GB2312", None, WANG),
    ("gb2312 without escapes under the typo ISO 2022 58", WANG.encode("gb2312"), "ISO 2022 58", None, WANG),
    ("gb2312 with escapes", IR58, "\\ISO 2022 IR 58", None, BOTH + "="),
    ("gb2312 with one escape and no second one", b"\x1b$)A\xcd\xf5^\xd0\xa1\xb6\xab", "\\ISO 2022 IR 58", None, WANG),
    ("gb2312 without escapes", WANG.encode("gb2312"), "\\ISO 2022 IR 58", None, WANG),
    ("gbk, charset missing, hospital known", WANG.encode("gbk"), None, "GB18030", WANG),
    ("gbk, charset missing, nothing known", WANG.encode("gbk"), None, None, WANG),
    ("gbk under ISO_IR 100, hospital known", WANG.encode("gbk"), "ISO_IR 100", "GB18030", WANG),
    ("gbk under ISO_IR 6, hospital known", "李^喆".encode("gbk"), "ISO_IR 6", "GBK", "李^喆"),
    ("gbk under ISO_IR 192", WANG.encode("gbk"), "ISO_IR 192", None, WANG),
    ("gbk under ISO_IR 192, hospital known", "李^喆".encode("gbk"), "ISO_IR 192", "GB18030", "李^喆"),
    ("utf-8 under GB18030", WANG.encode(), "GB18030", None, WANG),
    ("utf-8 under GB18030 in the second group", BOTH.encode(), "GB18030", "GB18030", BOTH),
    ("utf-8 under ISO_IR192", WANG.encode(), "ISO_IR192", None, WANG),
    ("utf-8 under UTF-8", WANG.encode(), "UTF-8", None, WANG),
    ("utf-8 under ISO_IR 100", WANG.encode(), "ISO_IR 100", None, WANG),
    ("utf-8, charset missing", WANG.encode(), None, None, WANG),
    ("utf-8 under GB2312, hospital known", WANG.encode(), "GB2312", "GB18030", WANG),
    ("^ as the second byte of a GBK character", "鮚^王".encode("gbk"), "GBK", None, "鮚^王"),
    ("backslash as the second byte", "誠".encode("gbk"), "GBK", None, "誠"),
    ("gbk that is valid two-byte utf-8", "联通".encode("gbk"), "GB18030", None, "联通"),
    ("latin-1 in a Chinese hospital", "Müller^Jürgen".encode("latin-1"), "ISO_IR 100", "GB18030", "Müller^Jürgen"),
    ("latin-1 where nothing is known", "Buc^Jérôme".encode("latin-1"), "ISO_IR 100", None, "Buc^Jérôme"),
    ("a value cut at a byte limit", "腹部增强扫描".encode()[:-1], "ISO_IR 192", None, "腹部增强扫"),
    ("an unknown term, hospital known", WANG.encode("gbk"), "CHINESE", "GB18030", WANG),
    ("katakana and kanji", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
     "ISO 2022 IR 13\\ISO 2022 IR 87", None, "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
    ("hangul", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "\\ISO 2022 IR 149", None,
     "Hong^Gildong=洪^吉洞"),
    ("JIS X 0212", b"\x1b$(D" + bytes(b & 0x7F for b in "丂".encode("euc_jp")[1:]) + b"\x1b(B^A",
     "\\ISO 2022 IR 159", None, "丂^A"),
    ("cyrillic", "Люксембург".encode("iso8859_5"), "ISO_IR 144", None, "Люксембург"),
]


@pytest.mark.parametrize(("raw", "declared", "known", "expected"), [row[1:] for row in PROBES],
                         ids=[row[0] for row in PROBES])
def test_text_is_what_a_person_would_read(raw, declared, known, expected):
    """Each way in which hospitals label, mislabel or do not label their text gives the same name."""
    charset = Charset(declared.split("\\") if declared is not None else (), known)
    assert charset.decode(raw) == expected


# Names of every length with common and rare ideographs
HAN = st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=4)


@given(HAN, HAN, st.sampled_from([("gb18030", "GB18030", None), ("utf-8", "ISO_IR 192", None),
                                  ("utf-8", "ISO_IR 192", "GB18030"), ("gb18030", None, "GB18030")]))
def test_a_right_label_or_a_known_hospital_never_spoils_a_name(family, given_name, how):
    """Text that is what its label says is decoded by the label, even where its bytes fit another charset too."""
    codec, declared, known = how
    text = f"{family}^{given_name}"
    raw = text.encode(codec)
    charset = Charset((declared,) if declared else (), known)
    if codec == "gb18030" and _is_utf8(raw):
        return  # the same bytes are two texts, and nothing in them decides
    assert charset.decode(raw) == text


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=80), st.sampled_from([None, "", "GB18030", "ISO_IR 100", "ISO_IR 192", "\\ISO 2022 IR 58",
                                                "ISO 2022 IR 13\\ISO 2022 IR 87", "rubbish"]),
       st.sampled_from([None, "GB18030", "latin-1", "euc_kr"]))
def test_any_bytes_give_a_text_without_escape_sequences(raw, declared, known):
    """No value of a header can stop its conversion, and ISO 2022 leaves no trace."""
    text = clean(Charset(declared.split("\\") if declared is not None else (), known).decode(raw))
    assert all(ord(c) >= 0x20 and not 0x7F <= ord(c) <= 0x9F for c in text)


@pytest.mark.parametrize("term", sorted(t for t in python_encoding if t))
def test_every_defined_term_is_known(term):
    """All defined terms of PS3.3 C.12.1.1.2 that pydicom knows have a codec."""
    assert codec_of(term)


@pytest.mark.parametrize(("term", "text"), [
    ("ISO_IR 101", "Łódź"), ("ISO_IR 109", "Ħamrun"), ("ISO_IR 110", "Šiauliai"), ("ISO_IR 126", "Διονυσιος"),
    ("ISO_IR 127", "قباني"), ("ISO_IR 138", "שרון"), ("ISO_IR 148", "Şişli"), ("ISO_IR 166", "สมชาย"),
    ("ISO_IR 100", "Äneas Rüdiger")])
def test_one_byte_charsets_agree_with_pydicom(term, text):
    """What a rightly labelled European, Arabic, Hebrew or Thai header says is not second-guessed."""
    raw = text.encode(python_encoding[term])
    assert Charset((term,)).decode(raw) == decode_bytes(raw, [python_encoding[term]], set()) == text


def test_name_groups_are_named_as_in_the_dicom_json_model():
    """PS3.5 6.2.1.2: three groups by place; empty ones and padding are left out."""
    assert name_groups("Wang^XiaoDong=王^小东=") == {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}
    assert name_groups("=王^小东") == {"Ideographic": "王^小东"}
    assert name_groups(" Doe^John^^^ \x00") == {"Alphabetic": "Doe^John"}
    assert name_groups("^^") == {}
