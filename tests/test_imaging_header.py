"""Headers are read as pydicom reads them, and hostile or broken ones are refused in words."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pydicom.data
import pynetdicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.datadict import keyword_for_tag
from pydicom.sequence import Sequence

from gateway.errors import Category, GatewayError
from gateway.imaging import header, read_header
from gateway.imaging.facts import FACTS

_SHIPPED = [Path(pydicom.data.__file__).parent / "charset_files", Path(pydicom.data.__file__).parent / "test_files",
            Path(pynetdicom.__file__).parent / "tests" / "dicom_files"]


def shipped_files() -> list[Path]:
    """Every DICOM file in the wheels of pydicom and pynetdicom."""
    files = [p for folder in _SHIPPED for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p in files if p.suffix in (".dcm", "") and p.name != "README"]


def a_data_set(**elements) -> Dataset:
    """The smallest header that is stored."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4.5.6"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def part10(ds: Dataset, syntax: str = header.EXPLICIT_LE) -> bytes:
    """A file of it."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2")
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def refusal(data: bytes, **how) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        read_header(data, **how)
    return caught.value


@pytest.mark.parametrize("path", shipped_files(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_reader_agrees_with_pydicom(path):
    """On every shipped file each fact that we read is the value that pydicom reads; what pydicom lacks we lack."""
    try:
        facts = read_header(BytesIO(path.read_bytes()))
    except GatewayError as error:
        assert (path.name, error.category) in REFUSED or error.where == "(0020,000D)" and "StudyInstanceUID" not in \
            dcmread(path, force=True), f"{path.name}: {error}"
        return
    ds = dcmread(path, force=True, stop_before_pixels=True)
    for tag, row in FACTS.items():
        if row.vr in ("SQ", "PN") or row.keyword == "SpecificCharacterSet" or (path.name, row.keyword) in UNREADABLE:
            continue
        theirs = ds.get(tag)
        value = theirs.value if theirs is not None else None
        expected = [] if value in (None, "") else list(value) if theirs.VM > 1 else [value]
        if row.vr not in ("IS", "US"):
            expected = [header.clean(str(v)) for v in expected]
        mine = facts.get(row.keyword, [])
        mine = mine if isinstance(mine, list) else [mine]
        assert mine == [v for v in expected if v not in ("", None)], row.keyword
    for row in FACTS.values():
        if row.vr == "SQ":
            assert [i.get("CodeValue") for i in facts.get(row.keyword, []) if "CodeValue" in i] == \
                [str(i.CodeValue) for i in (ds.get(row.keyword) or []) if i.get("CodeValue")]


#: Files that are refused although they have the four UIDs, or whose damage comes before them.
REFUSED = {("MR_truncated.dcm", Category.MALFORMED), ("rtplan_truncated.dcm", Category.MALFORMED),
           ("no_meta.dcm", Category.MALFORMED)}

#: A number that is none is as good as absent: "1A".
UNREADABLE = {("badVR.dcm", "NumberOfFrames")}

# PatientName as FileInfo.txt of the test files gives it, in its groups
NAMES = {
    "chrArab.dcm": {"Alphabetic": "قباني^لنزار"}, "chrFren.dcm": {"Alphabetic": "Buc^Jérôme"},
    "chrFrenMulti.dcm": {"Alphabetic": "Buc^Jérôme"}, "chrGerm.dcm": {"Alphabetic": "Äneas^Rüdiger"},
    "chrGreek.dcm": {"Alphabetic": "Διονυσιος"}, "chrHbrw.dcm": {"Alphabetic": "שרון^דבורה"},
    "chrH31.dcm": {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    "chrH32.dcm": {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
    "chrI2.dcm": {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"},
    "chrJapMulti.dcm": {"Alphabetic": "やまだ^たろう"}, "chrJapMultiExplicitIR6.dcm": {"Alphabetic": "やまだ^たろう"},
    "chrKoreanMulti.dcm": {"Alphabetic": "김희중"}, "chrRuss.dcm": {"Alphabetic": "Люкceмбypг"},
    "chrX1.dcm": {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小東"},
    "chrX2.dcm": {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [None, "GB18030"])
def test_names_of_the_charset_files_are_right(name, known):
    """Rightly labelled names of twelve scripts are right, in a Chinese hospital too."""
    assert read_header((_SHIPPED[0] / name).read_bytes(), known)["PatientName"] == NAMES[name]


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_a_missing_uid_is_invalid_and_named(keyword):
    """Without one of its four UIDs an object has no place: INVALID says which, by its tag."""
    ds = a_data_set()
    del ds[keyword]
    error = refusal(part10(ds))
    place = {"StudyInstanceUID": "(0020,000D)", "SeriesInstanceUID": "(0020,000E)", "SOPInstanceUID": "(0008,0018)",
             "SOPClassUID": "(0008,0016)"}[keyword]
    assert (error.category, error.where) == (Category.INVALID, place)


@pytest.mark.parametrize("uid", ["1.2.x", "1..2", ".1", "9" * 65, "1.2/../../etc", "<script>"])
def test_a_uid_that_is_none_is_invalid(uid):
    """UIDs become keys, paths and ids: only digits and dots, 64 at most, get through."""
    head, tail = part10(a_data_set()).split(struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", 8) + b"1.2.3.4\x00")
    raw = uid.encode() + b"\x00" * (len(uid) % 2)
    error = refusal(head + struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", len(raw)) + raw + tail)
    assert (error.category, error.where) == (Category.INVALID, "(0020,000D)")


def nested(depth: int, tag: tuple[int, int] = (0x0040, 0xA730)) -> bytes:
    head = struct.pack("<HH2sHL", *tag, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return head * depth


@pytest.mark.parametrize("tag", [(0x0008, 0x1140), (0x0009, 0x1001), (0x0040, 0x0275)])
def test_a_deeply_nested_sequence_is_malformed(tag):
    """A header of ten thousand nested sequences is refused in words; it neither recurses away nor takes the process."""
    data = part10(a_data_set())
    meta = data[:132 + 12 + struct.unpack_from("<L", data, 140)[0]]
    error = refusal(meta + nested(10_000, tag))
    assert error.category is Category.MALFORMED


def test_an_honest_depth_is_read():
    """Structured reports nest a dozen deep."""
    ds = inner = a_data_set()
    for _ in range(20):
        item = Dataset()
        item.ContentDate = "20260101"
        inner.ContentSequence = Sequence([item])
        inner = item
    ds.BodyPartExamined = "CHEST"
    for syntax in (header.EXPLICIT_LE, header.IMPLICIT_LE, header.EXPLICIT_BE):
        assert read_header(part10(ds, syntax))["BodyPartExamined"] == "CHEST"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_refused_or_read_but_never_a_fault(data):
    """Bytes flipped, cut or inserted anywhere give facts or a GatewayError, in bounded time."""
    name = data.draw(st.sampled_from(["reportsi.dcm", "rtstruct.dcm", "MR_small_implicit.dcm",
                                      "MR_small_bigendian.dcm", "image_dfl.dcm"]))
    whole = bytearray((_SHIPPED[1] / name).read_bytes())
    del whole[20_000:]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(whole), 3000) - 1))
        whole[at:at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    try:
        facts = read_header(bytes(whole))
    except GatewayError as error:
        assert error.category in (Category.MALFORMED, Category.INVALID)
    else:
        assert facts["StudyInstanceUID"]


@given(st.binary(max_size=300), st.sampled_from(["", header.EXPLICIT_LE, header.IMPLICIT_LE, header.EXPLICIT_BE,
                                                 header.DEFLATED_LE]), st.booleans())
def test_any_bytes_are_refused_in_words(data, syntax, prefixed):
    """Nothing but a GatewayError comes of bytes that nobody wrote as DICOM."""
    whole = bytes(128) + b"DICM" + data if prefixed else data
    assert refusal(whole, transfer_syntax=syntax).category in (Category.MALFORMED, Category.INVALID)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_half_an_object_is_malformed(cut):
    """An object that ends too early, in the header or in the pixels, is never stored as if it were whole."""
    data = (_SHIPPED[1] / "CT_small.dcm").read_bytes()
    ended = data[:data.rindex(b"\xfc\xff\xfc\xff")] if b"\xfc\xff\xfc\xff" in data else data
    assert refusal(ended[:int(len(ended) * cut)]).category is Category.MALFORMED


@pytest.mark.parametrize("rubbish", [b"", b"\x00", b"MSH|^~\\&|", b"GIF89a" * 100, b"\x00" * 500, b"\xff" * 500,
                                     b"\x00" * 128 + b"DICM"])
def test_what_is_no_dicom_is_malformed(rubbish):
    """Anything may be sent to an open port."""
    assert refusal(rubbish).category in (Category.MALFORMED, Category.INVALID)


def test_a_deflated_bomb_is_bounded():
    """A data set that inflates to gigabytes is opened as far as a header may reach, and no further."""
    bomb = struct.pack("<HH2sHL", 0x0008, 0x0001, b"OB", 0, 200 << 20) + b"\x00" * (200 << 20)
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    meta = part10(a_data_set(), header.DEFLATED_LE)
    meta = meta[:132 + 12 + struct.unpack_from("<L", meta, 140)[0]]
    assert refusal(meta + squeezer.compress(bomb) + squeezer.flush()).category is Category.MALFORMED


def test_a_bare_data_set_is_read_by_its_transfer_syntax():
    """A C-STORE hands over no File Meta Information: the negotiated syntax comes along."""
    ds = a_data_set(PatientName="王^小东", BodyPartExamined="CHEST")
    for syntax in (header.EXPLICIT_LE, header.IMPLICIT_LE, header.EXPLICIT_BE, header.DEFLATED_LE):
        data = part10(ds, syntax)
        bare = data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]
        facts = read_header(bare, transfer_syntax=syntax)
        assert (facts["PatientName"], facts["TransferSyntaxUID"]) == ({"Alphabetic": "王^小东"}, syntax)


def test_bytes_win_over_a_wrong_transfer_syntax():
    """Some senders write implicit VR under the label of explicit, and the reverse."""
    ds = a_data_set(StudyDescription="头颅平扫")
    for written, label in ((header.IMPLICIT_LE, header.EXPLICIT_LE), (header.EXPLICIT_LE, header.IMPLICIT_LE)):
        data = part10(ds, written)
        bare = data[132 + 12 + struct.unpack_from("<L", data, 140)[0]:]
        assert read_header(bare, transfer_syntax=label)["StudyDescription"] == "头颅平扫"


def test_header_and_bytes_read_alike():
    """A file object with a header longer than one window gives what the same bytes give."""
    ds = a_data_set(PatientName="A^B")
    ds.add_new(0x00091010, "UN", b"\x01" * 300_000)
    ds.InstitutionName = "第一医院"
    ds.StudyDescription = "x"
    data = part10(ds)
    assert read_header(data) == read_header(BytesIO(data))
    assert read_header(data)["StudyDescription"] == "x"


def test_an_item_with_its_own_charset_is_decoded_by_it():
    """PS3.3 C.12.1.1.2: (0008,0005) inside an item is for that item alone."""
    for name in ("chrSQEncoding.dcm", "chrSQEncoding1.dcm"):
        ds = dcmread(_SHIPPED[0] / name)
        for keyword, value in (("SOPClassUID", "1.2"), ("SOPInstanceUID", "1.3"), ("StudyInstanceUID", "1.4"),
                               ("SeriesInstanceUID", "1.5")):
            setattr(ds, keyword, value)
        buffer = BytesIO()
        ds.save_as(buffer)
        table = FACTS[0x00321064].items
        table[0x00100010] = header.Row("PatientName", "PN")
        try:
            [item] = read_header(buffer.getvalue())["RequestedProcedureCodeSequence"]
        finally:
            del table[0x00100010]
        assert item["PatientName"] == {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}


def test_keywords_are_those_of_the_data_dictionary():
    """The table of facts names every tag as PS3.6 does."""
    def walk(table):
        for tag, row in table.items():
            assert keyword_for_tag(tag) == row.keyword
            walk(row.items)
    walk(FACTS)
