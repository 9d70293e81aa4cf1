"""DICOM headers → facts → FHIR ImagingStudy and Patient. Pure: no I/O beyond a given file object, no clock, no random."""

from gateway.imaging.facts import Facts
from gateway.imaging.header import read_header

__all__ = ["Facts", "read_header"]
