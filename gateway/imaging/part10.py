"""DICOM JSON model (PS3.18 Annex F) → Part 10 files, for examples that are kept as text and sent as a PACS would."""

from __future__ import annotations

import io
import json

from pydicom import Dataset, FileMetaDataset, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from gateway.errors import Category, GatewayError


def part10_from_json(text: str) -> list[bytes]:
    """One Part 10 file (Explicit VR Little Endian) for each data set of a JSON object or array.

    Text is encoded in the data set's own (0008,0005). What the data set lacks stays lacking: an example may be one that
    must be refused.
    """
    try:
        model = json.loads(text)
    except ValueError:
        raise GatewayError(Category.MALFORMED, "not JSON; a DICOM example is DICOM JSON (PS3.18 F.2)") from None
    return [_part10(Dataset.from_json(one)) for one in (model if isinstance(model, list) else [model])]


def _part10(ds: Dataset) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "2.25.0")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()
