"""What Huren defines, as FHIR R4 JSON: see README.md in this folder."""
