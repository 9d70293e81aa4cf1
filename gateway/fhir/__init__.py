"""FHIR R4 resources as plain dicts: exact JSON and XML, check, Bundle, OperationOutcome. No sockets, no SQL."""
