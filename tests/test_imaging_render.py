"""Pictures of stored objects: every photometric kind, windows, frames, syntaxes; and what is refused."""

from __future__ import annotations

import io
import itertools
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.errors import Category, GatewayError
from gateway.imaging.render import MAX_SIZE, render

Array = np.ndarray[Any, Any]


def part10(pixels: Array | None, syntax: str = ExplicitVRLittleEndian, raw: bytes | None = None, **more: Any) -> bytes:
    """An object with these pixels: grey (rows, columns), frames before them, RGB behind them."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    if pixels is not None:
        colour = pixels.shape[-1] == 3 and pixels.ndim > 2
        frames = pixels.shape[:-3] if colour else pixels.shape[:-2]
        rows, columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
        bits = pixels.dtype.itemsize * 8
        ds.Rows, ds.Columns, ds.SamplesPerPixel = rows, columns, 3 if colour else 1
        ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        if colour:
            ds.PlanarConfiguration = 0
        if frames:
            ds.NumberOfFrames = frames[0]
        ds.PixelData = raw if raw is not None else pixels.tobytes()
        ds["PixelData"].VR = "OB" if raw is not None or bits == 8 else "OW"
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    if pixels is not None and "PixelData" in ds and len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def look(content: bytes, **how: Any) -> Array:
    """The pixels that a screen shows."""
    return np.asarray(Image.open(io.BytesIO(render(content, **how).content)))


RAMP = np.arange(-1024, 3072, 16, dtype=np.int16).reshape(16, 16)


def test_the_window_of_the_object_is_applied_after_the_rescale() -> None:
    """Values below the window are black, above it white, its centre in the middle (PS3.3 C.11.2.1.2)."""
    stored = (RAMP + 1024).astype(np.uint16)
    shown = look(part10(stored, RescaleSlope="1", RescaleIntercept="-1024", WindowCenter=["40", "300"],
                        WindowWidth=["400", "1500"]))
    assert shown.dtype == np.uint8 and shown.shape == (16, 16)
    assert shown[RAMP < -160].max() == 0 and shown[RAMP > 240].min() == 255
    assert abs(int(shown[RAMP == 32][0]) - 122) <= 1


def test_an_asked_window_wins() -> None:
    """A lung window shows what a soft tissue window does not, of the same stored values."""
    content = part10(RAMP, WindowCenter="40", WindowWidth="400")
    soft, lung = look(content), look(content, center=-600, width=1500)
    assert len(np.unique(soft[RAMP < -400])) == 1 < len(np.unique(lung[RAMP < -400]))
    picture = render(content, center=-600, width=1500)
    assert (picture.center, picture.width, picture.media_type) == (-600, 1500, "image/png")


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_voi_functions_never_fall(function: str) -> None:
    """Whatever the function, a larger value is never darker."""
    shown = look(part10(RAMP, WindowCenter="40", WindowWidth="400", VOILUTFunction=function)).ravel().astype(int)
    assert (np.diff(shown) >= 0).all() and shown[0] < 10 and shown[-1] > 245


def test_monochrome1_is_shown_inverted() -> None:
    """The smallest value of MONOCHROME1 is white (PS3.3 C.7.6.3.1.2)."""
    window = {"WindowCenter": "128", "WindowWidth": "256"}
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    one = look(part10(grey, PhotometricInterpretation="MONOCHROME1", **window))
    assert (one == 255 - look(part10(grey, **window))).all() and one[0, 0] == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_without_a_window_the_values_fill_the_grey(dtype: Any) -> None:
    """Any integer kind: the middle 98 % of the values use the whole range, and single outliers do not spoil it."""
    values = (np.arange(64 * 64) % 100).reshape(64, 64).astype(dtype)
    values[0, 0] = np.iinfo(dtype).max
    shown = look(part10(values))
    assert shown.min() == 0 and shown.max() == 255 and 100 < np.median(shown) < 155


def test_padding_does_not_count() -> None:
    """What pads the circle of a reconstruction does not widen the window."""
    values = np.full((32, 32), -2000, np.int16)
    values[8:24, 8:24] = np.arange(256).reshape(16, 16)
    assert 90 < np.median(look(part10(values, PixelPaddingValue=-2000))[8:24, 8:24]) < 165


def test_colours() -> None:
    """RGB, YBR_FULL and PALETTE COLOR show the same red."""
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    ybr = np.tile(np.array([76, 85, 255], np.uint8), (8, 8, 1))
    palette = part10(np.ones((8, 8), np.uint8), PhotometricInterpretation="PALETTE COLOR",
                     RedPaletteColorLookupTableDescriptor=[2, 0, 16], GreenPaletteColorLookupTableDescriptor=[2, 0, 16],
                     BluePaletteColorLookupTableDescriptor=[2, 0, 16], RedPaletteColorLookupTableData=b"\0\0\xff\xff",
                     GreenPaletteColorLookupTableData=b"\0\0\0\0", BluePaletteColorLookupTableData=b"\0\0\0\0")
    for content in (part10(red), part10(ybr, PhotometricInterpretation="YBR_FULL"), palette):
        shown = look(content)
        assert shown.shape == (8, 8, 3) and shown[4, 4, 0] > 250 and shown[4, 4, 1:].max() < 5


def test_planes_of_colour_and_one_bit() -> None:
    """Colour by plane, and segmentations of one bit a pixel."""
    planes = np.zeros((3, 8, 8), np.uint8)
    planes[1] = 255
    ds = dcmread(io.BytesIO(part10(np.zeros((8, 8, 3), np.uint8))))
    ds.PlanarConfiguration, ds.PixelData = 1, planes.tobytes()
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    assert look(out.getvalue())[0, 0].tolist() == [0, 255, 0]
    bits = look(part10(np.zeros((8, 8), np.uint8), raw=b"\x0f" * 8, BitsAllocated=1, BitsStored=1, HighBit=0))
    assert set(np.unique(bits)) == {0, 255}


def test_frames() -> None:
    """A frame is chosen from 1; what is not there is refused."""
    frames = np.stack([np.full((8, 8), n * 80, np.uint8) for n in range(3)])
    content = part10(frames, WindowCenter="128", WindowWidth="256")
    assert [int(look(content, frame=n)[0, 0]) for n in (1, 2, 3)] == [0, 80, 160]
    assert render(content).frames == 3
    for frame in (0, 4):
        with pytest.raises(GatewayError) as refused:
            render(content, frame=frame)
        assert refused.value.where == "frame"


def test_enhanced_objects_have_values_by_frame() -> None:
    """Rescale and window of the functional groups (PS3.3 C.7.6.16) are used, the frame's before the shared ones."""
    def group(center: str) -> Dataset:
        item, voi, rescale = Dataset(), Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = center, "100"
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "1", "-1000", "HU"
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence = [voi], [rescale]
        return item
    content = part10(np.full((2, 8, 8), 1000, np.int16), PerFrameFunctionalGroupsSequence=[group("0"), group("500")])
    assert abs(int(look(content)[0, 0]) - 128) <= 2 and look(content, frame=2)[0, 0] == 0


def test_sizes_and_kinds_of_file() -> None:
    """Small ones are JPEG, large ones PNG; never enlarged; pixels that are not square keep their shape."""
    wide = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    small, large = render(part10(wide), size=96), render(part10(wide), size=1024)
    assert (small.columns, small.rows, small.media_type) == (96, 48, "image/jpeg")
    assert (large.columns, large.rows, large.media_type) == (200, 100, "image/png")
    tall = render(part10(wide, PixelSpacing=["2", "1"]), size=1024)
    assert tall.columns == tall.rows == 100


def test_compressed_syntaxes() -> None:
    """JPEG baseline, JPEG 2000 and RLE are decoded; grey stays within the loss that is allowed."""
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    window = {"WindowCenter": "128", "WindowWidth": "256"}
    want = look(part10(grey, **window)).astype(int)

    def pillow(kind: str, **options: Any) -> bytes:
        out = io.BytesIO()
        Image.fromarray(grey).save(out, kind, **options)
        return encapsulate([out.getvalue()])
    for syntax, raw in ((JPEGBaseline8Bit, pillow("JPEG", quality=95)),
                        (JPEG2000Lossless, pillow("JPEG2000", irreversible=False))):
        got = look(part10(grey, syntax, raw, **window)).astype(int)
        assert np.abs(got - want).max() <= 8, syntax
    ds = dcmread(io.BytesIO(part10(grey, **window)))
    ds.compress(RLELossless)
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    assert (look(out.getvalue()) == want).all()


def test_jpeg_ls() -> None:
    """JPEG-LS of 16 bits comes out to the digit."""
    values = np.arange(-1000, 1048, 2, dtype=np.int16).reshape(32, 32)
    window = {"WindowCenter": "0", "WindowWidth": "1000"}
    ds = dcmread(io.BytesIO(part10(values, **window)))
    ds.compress(JPEGLSLossless)
    out = io.BytesIO()
    dcmwrite(out, ds, enforce_file_format=True)
    assert (look(out.getvalue()) == look(part10(values, **window))).all()


def test_without_a_decoder_the_refusal_says_so() -> None:
    """JPEG Lossless needs a decoder that is not ours; where there is none, that is said, not a fault."""
    if get_decoder(UID(JPEGLosslessSV1)).is_available:
        pytest.skip("a decoder for it is installed here")
    with pytest.raises(GatewayError) as refused:
        render(part10(np.zeros((8, 8), np.uint8), JPEGLosslessSV1, encapsulate([b"\xff\xd8\xff\xd9"])))
    assert (refused.value.category, refused.value.where) == (Category.UNSUPPORTED, "(0002,0010)")


# ---------------------------------------------------------------- refusals

def test_what_is_no_picture() -> None:
    """A report has no pixels, and a lie about its size is no reason to give up memory."""
    small = np.zeros((4, 4), np.uint8)
    for content, category in (
            (part10(None), Category.UNSUPPORTED), (b"", Category.MALFORMED), (b"\0" * 400, Category.MALFORMED),
            (part10(small, Rows=0), Category.MALFORMED), (part10(small, NumberOfFrames="-1"), Category.MALFORMED),
            (part10(small, Rows=65535, Columns=65535), Category.INVALID),
            (part10(small, NumberOfFrames="2000000000"), Category.INVALID),
            (part10(small, Rows=4000, Columns=4000), Category.UNSUPPORTED),  # fewer bytes than it says
            (part10(small, SamplesPerPixel=2), Category.INVALID),
            (part10(small, DeflatedExplicitVRLittleEndian), Category.UNSUPPORTED)):
        with pytest.raises(GatewayError) as refused:
            render(content)
        assert refused.value.category is category, content[:200]


def test_a_codestream_larger_than_its_header_says_is_refused() -> None:
    """A bomb: 20,000 × 20,000 pixels of JPEG 2000 or JPEG under Rows 16 are not decoded."""
    grey = np.zeros((16, 16), np.uint8)
    out = io.BytesIO()
    Image.new("L", (20000, 20000)).save(out, "JPEG")
    began = time.perf_counter()
    with pytest.raises(GatewayError) as refused:
        render(part10(grey, JPEGBaseline8Bit, encapsulate([out.getvalue()])))
    assert refused.value.category is Category.UNSUPPORTED and time.perf_counter() - began < 2


@pytest.mark.parametrize("how", [{"size": 15}, {"size": MAX_SIZE + 1}, {"center": 40.0}, {"width": 400.0},
                                 {"center": 40.0, "width": 0.0}, {"center": float("nan"), "width": 400.0},
                                 {"center": 40.0, "width": float("inf")}])
def test_parameters_are_checked(how: dict[str, Any]) -> None:
    """A size or window that makes no sense is INVALID."""
    with pytest.raises(GatewayError) as refused:
        render(part10(RAMP), **how)
    assert refused.value.category is Category.INVALID


_SAMPLES = [part10(RAMP, WindowCenter="40", WindowWidth="400"), part10(np.zeros((3, 8, 8), np.uint8)),
            part10(np.zeros((8, 8, 3), np.uint8)),
            part10(RAMP.astype(np.uint8), JPEGBaseline8Bit, encapsulate([b"\xff\xd8\xff\xd9"]))]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_SAMPLES), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
       st.integers(0, 2000))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_never_escapes(content: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    """Whatever is wrong with the bytes, there is a picture or a refusal that an edge can answer."""
    damaged = bytearray(content)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    if cut % 3 == 0:
        del damaged[132 + cut:]
    try:
        assert render(bytes(damaged), size=64).content
    except GatewayError as refused:
        assert refused.category in (Category.MALFORMED, Category.INVALID, Category.UNSUPPORTED)


@settings(max_examples=60, deadline=None)
@given(st.integers(-5000, 5000), st.integers(1, 10000), st.sampled_from([np.uint8, np.int16, np.uint16]))
def test_a_window_is_monotonous(center: int, width: int, dtype: Any) -> None:
    """A larger value is never shown darker, in any window."""
    values = np.sort(np.resize(np.arange(-300, 900), 256)).astype(dtype)
    shown = look(part10(np.sort(values).reshape(16, 16)), center=float(center), width=float(width)).ravel()
    assert all(a <= b for a, b in itertools.pairwise(shown.tolist()))
