"""The teaching hospital's laboratory tells analyser, reagent lot and quality control in ZQC behind each result."""

from gateway.adapter import Message, Resource


def before(message: Message) -> Message | None:
    """Its engine writes a missing OBR-22 as blanks: they say nothing."""
    for obr in message.all("OBR"):
        if obr.get(22).isspace():
            obr.set(22, "")
    return message


def after(resources: list[Resource], message: Message) -> list[Resource]:
    """ZQC-2 is the local code of a result, ZQC-4 the state of its internal quality control: a note of that result."""
    states = {zqc.get(2): f"{zqc.get(3)}: {zqc.get(4)}" for zqc in message.all("ZQC")}
    for resource in resources:
        if resource["resourceType"] == "Observation":
            local = resource["code"]["coding"][-1]["code"]
            if local in states:
                resource.setdefault("note", []).append({"text": states[local]})
    return resources
