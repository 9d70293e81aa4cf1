"""A stored DICOM object → a picture for a screen: PNG or JPEG of one frame. Pure: bytes in, bytes out.

For a doctor who decides whether a result is worth looking at, not for diagnosis: 8 bits, one window. Decoders are
pydicom's; what none of them can decode is refused in words. Nothing is decoded before its size is known to be sane.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

from gateway.errors import Category, GatewayError
from gateway.imaging.header import read_header

#: Of one frame; the largest digital mammograms have 30 million. A compressed frame may claim less than it holds.
MAX_PIXELS = 64_000_000
MAX_BYTES = 256 * 1024 * 1024
MAX_FRAMES = 100_000
MIN_SIZE, MAX_SIZE = 16, 2048
_JPEG_UP_TO = 256  # pixels: a thumbnail; larger ones are exact
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.8.1")
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice of it

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """``content`` is of ``media_type``; ``frames``: of the object. ``center``, ``width``: the window that was used."""

    content: bytes
    media_type: str
    columns: int
    rows: int
    frames: int
    center: float | None = None
    width: float | None = None


def render(content: bytes, size: int = 512, frame: int = 1, center: float | None = None,
           width: float | None = None) -> Picture:
    """One frame (from 1) of a Part 10 object, its longer side at most ``size`` pixels; it is never enlarged.

    ``center`` and ``width``: a window in units of the modality (HU), instead of the object's own (PS3.3 C.11.2);
    without any the middle 98 % of the values are shown. UNSUPPORTED: no picture, or no decoder for it; INVALID: a
    parameter, or an object larger than anything real; MALFORMED: it cannot be read.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise _invalid(f"size must be {MIN_SIZE} to {MAX_SIZE}", "size")
    if width is not None and (center is None or not math.isfinite(width) or width < 1):
        raise _invalid("a window is center and width, a width at least 1", "width")
    if center is not None and (width is None or not math.isfinite(center)):
        raise _invalid("a window is center and width", "center")
    ds = _read(content)
    frames = _check(ds)
    if not 1 <= frame <= frames:
        raise _invalid(f"this object has frames 1 to {frames}", "frame")
    try:
        with np.errstate(all="ignore"):
            shown, window = _shown(ds, frame - 1, None if center is None or width is None else (center, width))
            return _picture(shown, size, _aspect(ds, frame - 1), frames, window)
    except GatewayError:
        raise
    except Exception as problem:  # a decoder's, on bytes that lie: whatever they raise, it is the object's fault
        raise _undrawable(problem) from None


# ---------------------------------------------------------------- what came

def _read(content: bytes) -> Dataset:
    if len(content) > MAX_BYTES:
        raise _invalid("the object is larger than what is drawn here; open it in a viewer")
    if content[128:132] != b"DICM":
        raise GatewayError(Category.MALFORMED, "this is no DICOM file (PS3.10 7.1)")
    if read_header(content)["TransferSyntaxUID"] in _DEFLATED:  # what it becomes is not known before it is there
        raise GatewayError(Category.UNSUPPORTED, "deflated objects are not drawn; have it sent uncompressed",
                           "(0002,0010)", detail="accept")
    try:
        return dcmread(io.BytesIO(content))
    except Exception:
        raise GatewayError(Category.MALFORMED, "the DICOM object cannot be read; have it sent again") from None


def _check(ds: Dataset) -> int:
    """How many frames there are; refused where nothing sane can be drawn."""
    if not any(name in ds for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise GatewayError(Category.UNSUPPORTED, "this object holds no picture", "(7FE0,0010)", detail="accept")
    rows, columns = _whole_number(ds, "Rows", "(0028,0010)"), _whole_number(ds, "Columns", "(0028,0011)")
    frames = _whole_number(ds, "NumberOfFrames", "(0028,0008)", 1)
    samples = _whole_number(ds, "SamplesPerPixel", "(0028,0002)", 1)
    if rows * columns > MAX_PIXELS or frames > MAX_FRAMES or samples not in (1, 3):
        raise _invalid("the picture is larger than anything real; it is not drawn", "(0028,0010)")
    return frames


def _whole_number(ds: Dataset, keyword: str, where: str, default: int | None = None) -> int:
    try:
        value = ds.get(keyword, default)
        number = int(default if value is None or value == "" else value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = 0
    except Exception:
        raise GatewayError(Category.MALFORMED, "the DICOM object cannot be read; have it sent again", where) from None
    if number < 1:
        raise GatewayError(Category.MALFORMED, f"{keyword} must be a whole number above 0", where)
    return number


# ---------------------------------------------------------------- values to grey or colour

def _shown(ds: Dataset, frame: int, asked: tuple[float, float] | None
           ) -> tuple[Pixels, tuple[float, float] | None]:
    """Pixels of 8 bits, grey or RGB, and the window."""
    pixels = pixel_array(ds, index=frame)  # colours as RGB
    photometric = str(ds.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        return _eight_bits(apply_color_lut(pixels, ds)), None
    if pixels.ndim == 3:
        return _eight_bits(pixels, int(ds.get("BitsStored", 8))), None
    values = _modality(ds, pixels, frame)
    window = asked or _own_window(ds, frame) or _percentiles(ds, pixels, values)
    grey = _windowed(values, *window, str(ds.get("VOILUTFunction", "") or "LINEAR") if asked is None else "LINEAR")
    return (255 - grey if photometric == "MONOCHROME1" else grey), window


def _eight_bits(colours: Pixels, stored: int = 0) -> Pixels:
    if colours.dtype == np.uint8 and stored in (0, 8):
        return colours
    stored = stored or colours.dtype.itemsize * 8
    return np.clip(colours.astype(np.float32) * (255 / ((1 << stored) - 1)), 0, 255).astype(np.uint8)


def _group(ds: Dataset, frame: int, sequence: str) -> Dataset:
    """The functional group of a frame that holds a macro (PS3.3 C.7.6.16), else the data set itself."""
    for groups, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
        found = ds.get(groups)
        if found and place < len(found) and (inner := found[place].get(sequence)):
            return inner[0]
    return ds


def _modality(ds: Dataset, pixels: Pixels, frame: int) -> Pixels:
    """Stored values → units of the modality (PS3.3 C.11.1)."""
    group = _group(ds, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(group.get("RescaleSlope")), _number(group.get("RescaleIntercept"))
    if "ModalityLUTSequence" in ds:
        return np.asarray(apply_modality_lut(pixels, ds), dtype=np.float32)
    return pixels.astype(np.float32) * np.float32(1 if slope is None else slope) + np.float32(intercept or 0)


def _own_window(ds: Dataset, frame: int) -> tuple[float, float] | None:
    group = _group(ds, frame, "FrameVOILUTSequence")
    center, width = _number(group.get("WindowCenter")), _number(group.get("WindowWidth"))
    return None if center is None or width is None or width < 1 else (center, width)


def _number(value: Any) -> float | None:
    """The first value of a DS; None where there is none that is finite."""
    if value is not None and not isinstance(value, str | float | int) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _percentiles(ds: Dataset, pixels: Pixels, values: Pixels) -> tuple[float, float]:
    """The window that shows the middle 98 % of what is no padding (PS3.3 C.7.5.1.1.2)."""
    step = max(1, values.size // 250_000)
    sample = values.ravel()[::step]
    padding = _number(ds.get("PixelPaddingValue"))
    if padding is not None:
        kept = sample[pixels.ravel()[::step] != padding]
        sample = kept if kept.size else sample
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(sample, (1, 99)))
    if high - low < 1:
        low, high = float(sample.min()), float(sample.max())
    return (low + high) / 2, max(high - low, 1.0)


def _windowed(values: Pixels, center: float, width: float, function: str) -> Pixels:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        shown = 255 / (1 + np.exp(-4 * (values - center) / width))
    elif function == "LINEAR_EXACT" or width <= 1:
        shown = ((values - center) / width + 0.5) * 255
    else:
        shown = ((values - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.asarray(np.rint(np.nan_to_num(np.clip(shown, 0, 255))), dtype=np.uint8)


# ---------------------------------------------------------------- to a screen

def _aspect(ds: Dataset, frame: int) -> float:
    """Height of a pixel over its width (PS3.3 C.7.6.3.1.7, 10.7.1.3)."""
    spacing = _group(ds, frame, "PixelMeasuresSequence").get("PixelSpacing") or ds.get("ImagerPixelSpacing") \
        or ds.get("PixelAspectRatio")
    try:
        ratio = float(spacing[0]) / float(spacing[1])
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return 1.0
    return ratio if 0.05 < ratio < 20 else 1.0


def _picture(pixels: Pixels, size: int, aspect: float, frames: int, window: tuple[float, float] | None) -> Picture:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    columns, rows = float(image.width), float(image.height)
    if abs(aspect - 1) > 0.01:
        columns, rows = (columns, rows * aspect) if aspect < 1 else (columns / aspect, rows)  # never enlarged
    scale = min(1.0, size / max(columns, rows))
    wanted = max(1, round(columns * scale)), max(1, round(rows * scale))
    if wanted != image.size:
        image = image.resize(wanted, Image.Resampling.BOX if min(image.size) > 4 * max(wanted) else
                             Image.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    if size <= _JPEG_UP_TO:
        image.save(out, "JPEG", quality=85)
    else:
        image.save(out, "PNG", compress_level=2)
    center, width = window or (None, None)
    return Picture(out.getvalue(), "image/jpeg" if size <= _JPEG_UP_TO else "image/png", *image.size, frames,
                   center, width)


def _invalid(message: str, where: str = "") -> GatewayError:
    return GatewayError(Category.INVALID, message, where, detail="request")


def _undrawable(problem: Exception) -> GatewayError:
    if isinstance(problem, NotImplementedError | RuntimeError) and "plugin" in str(problem) + type(problem).__name__:
        return GatewayError(Category.UNSUPPORTED, "no decoder for this transfer syntax is installed; install one "
                            "that pydicom knows, or have it sent uncompressed", "(0002,0010)", detail="accept")
    return GatewayError(Category.UNSUPPORTED, "the pixel data cannot be decoded; open the study in a viewer",
                        "(7FE0,0010)", detail="accept")
