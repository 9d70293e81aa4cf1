"""Load through C-STORE with dcmtk's `storescu`: CT slices of 40 KB, every object and row durable before the answer."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian


def slices(folder: Path, study: int, count: int = 500) -> None:
    """Write ``count`` slices of one invented CT study: 144 × 144 pixels of 16 bits, 41 KB each."""
    folder.mkdir(parents=True)
    uid = f"2.25.{90_000_000 + study}"
    rng = random.Random(study)
    for i in range(1, count + 1):
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"{uid}.1.{i}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, f"{uid}.1"
        ds.StudyDate, ds.StudyTime, ds.Modality, ds.AccessionNumber = "20261101", "083000", "CT", f"B{study}"
        ds.StudyDescription, ds.SeriesDescription = "Bench CT", "Axial 1mm"
        ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientBirthDate = "Bench^Patient", f"B{study}", "F", "19700101"
        ds.SeriesNumber, ds.InstanceNumber = 1, i
        ds.Rows = ds.Columns = 144
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.PixelData = rng.randbytes(144 * 144 * 2)
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)


def store(port: int, associations: int, first_study: int, per_association: int = 500, called: str = "HUREN") -> float:
    """Instances per second over parallel `storescu` runs, one study each; ends the program when one fails."""
    top = Path(tempfile.mkdtemp(prefix="huren-bench-dicom-"))
    try:
        for a in range(associations):
            slices(top / str(a), first_study + a, per_association)
        env = os.environ | {"TCP_NODELAY": "1"}  # Debian's dcmtk leaves Nagle's algorithm on: 40 ms an instance
        began = time.perf_counter()
        runs = [subprocess.Popen(["storescu", "-aet", "BENCH", "-aec", called, "+sd", "+r", "127.0.0.1", str(port),
                                  str(top / str(a))], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                for a in range(associations)]
        for run in runs:
            said = run.communicate()[0].decode(errors="replace")
            if run.returncode:
                raise SystemExit(f"storescu failed: {said[-500:]}")
        return associations * per_association / (time.perf_counter() - began)
    finally:
        shutil.rmtree(top, ignore_errors=True)
