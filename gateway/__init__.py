"""Huren (互认, mutual recognition): a FHIR/HL7 interoperability gateway."""

__version__ = "0.1.0"
