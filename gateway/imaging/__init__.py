"""DICOM headers → facts → FHIR ImagingStudy and Patient. Pure: no I/O beyond a given file object, no clock, no random.

- ``read_header(source, charset=None, transfer_syntax="") -> Facts``: the header of bytes or a binary file.
- ``header_length(source) -> int``: where the pixel data begins.
- ``study_from(instances, source) -> Conversion``: the resources of one study's instances.

The manual is ``README.md`` in this folder.
"""

from gateway.imaging.facts import Facts
from gateway.imaging.header import header_length, read_header
from gateway.imaging.study import study_from

__all__ = ["Facts", "header_length", "read_header", "study_from"]
