"""Demo West Lake Hospital: its laboratory tells the analyser and the quality control in a Z-segment."""

from gateway.adapter import Message, Resource


def after(resources: list[Resource], message: Message) -> list[Resource]:
    """ZQC-2 names the analyser, ZQC-3 the state of the internal quality control: kept as a note of the report."""
    notes = [f"{zqc.get(2)}: {zqc.get(3)}" for zqc in message.all("ZQC") if zqc.get(3)]
    for resource in resources:
        if notes and resource["resourceType"] == "DiagnosticReport":
            resource.setdefault("extension", []).extend(
                {"url": "http://huren.example/fhir/StructureDefinition/quality-control", "valueString": note}
                for note in notes)
    return resources
