"""Makes `elements.json` from HL7's own R4 definitions: run by a developer, never at run time.

``python -m gateway.fhir.build_elements FOLDER`` where FOLDER is the unpacked FHIR package ``hl7.fhir.r4.core`` (4.0.1):
one JSON file per definition. `tests/test_fhir_check.py` compares the result with the models of ``fhir.resources`` R4B.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson

OUTPUT = Path(__file__).with_name("elements.json")
SUMMARY, MODIFIER = 1, 2
#: Value sets of more codes than this (currencies, languages, MIME types, units) are not listed: they are no closed set
#: that a sender could usefully be told about.
LARGEST = 200
#: Abstract types whose elements are written once and inherited.
BASES = {"Element", "BackboneElement", "Resource", "DomainResource"}
_FHIRPATH = "http://hl7.org/fhirpath/System."
_FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"


def build(folder: Path) -> dict[str, Any]:
    """Tables of every R4 resource and data type: rows of ``[name, types, min, many, flags, value set, targets]``."""
    sets = ValueSets(folder)
    types: dict[str, Any] = {}
    for path in sorted(folder.glob("StructureDefinition-*.json")):
        definition = orjson.loads(path.read_bytes())
        if definition.get("fhirVersion", "4.0.1") == "4.0.1" and definition.get("derivation") != "constraint" \
                and definition["kind"] in ("complex-type", "resource"):
            add_type(types, definition, sets)
    return {"fhirVersion": "4.0.1", "types": dict(sorted(types.items())), "valueSets": dict(sorted(sets.used.items()))}


def add_type(types: dict[str, Any], definition: dict[str, Any], sets: ValueSets) -> None:
    """Add a type and its backbone elements, which are named by their path (``Observation.component``)."""
    own = definition["type"]
    base = definition.get("baseDefinition", "").rpartition("/")[2]
    kind = "resource" if definition["kind"] == "resource" else "type"
    parents = {e["path"].rpartition(".")[0] for e in definition["snapshot"]["element"]}
    types[own] = {"base": base, "kind": kind, "elements": []}
    if definition.get("abstract"):
        types[own]["abstract"] = True
    for element in definition["snapshot"]["element"][1:]:
        path = element["path"]
        parent, _, name = path.rpartition(".")
        if path in parents:  # a backbone element, or an anonymous one such as Timing.repeat
            code = element["type"][0]["code"]
            types[path] = {"base": code, "kind": "element", "elements": []}
        if own not in BASES and element["base"]["path"].partition(".")[0] in BASES:
            continue  # inherited
        types[parent]["elements"].append(row(name, path, element, path in parents, sets))


def row(name: str, path: str, element: dict[str, Any], backbone: bool, sets: ValueSets) -> list[Any]:
    """One element's row; trailing nulls are cut off."""
    if backbone:
        kinds = [path]
    elif "contentReference" in element:
        kinds = [element["contentReference"].rpartition("#")[2]]
    elif element["base"]["path"] == "Resource.id":
        kinds = ["id"]  # declared as a string; resource.html#id gives the rule of the type id
    else:
        kinds = list(dict.fromkeys(type_code(t) for t in element["type"]))
    flags = SUMMARY * bool(element.get("isSummary")) | MODIFIER * bool(element.get("isModifier"))
    binding = element.get("binding", {})
    bound = sets.use(binding["valueSet"]) if binding.get("strength") == "required" and "valueSet" in binding \
        and set(kinds) & {"code", "Coding", "CodeableConcept"} else None
    targets = sorted({profile.rpartition("/")[2] for t in element.get("type", ()) if t.get("code") == "Reference"
                      for profile in t.get("targetProfile", ())})
    cells = [name, "|".join(kinds), element["min"], int(element["max"] != "1"), flags, bound,
             None if targets == ["Resource"] else " ".join(targets) or None]
    while cells[-1] is None:
        cells.pop()
    return cells


def type_code(type_: dict[str, Any]) -> str:
    """The FHIR type behind a type entry: ids and the like are declared as FHIRPath strings with an extension."""
    code = type_["code"]
    if code.startswith(_FHIRPATH):
        for extension in type_.get("extension", ()):
            if extension["url"] == _FHIR_TYPE:
                return extension["valueUrl"]
        return code[len(_FHIRPATH):].lower()
    return code


class ValueSets:
    """Required value sets, expanded from the code systems of the same file where they are closed and small."""

    def __init__(self, folder: Path) -> None:
        self._sets: dict[str, Any] = _by_url(folder, "ValueSet")
        self._systems: dict[str, Any] = _by_url(folder, "CodeSystem")
        self.used: dict[str, Any] = {}

    def use(self, canonical: str) -> str | None:
        """The short name under which the value set is kept, or None when it cannot be listed."""
        url = canonical.partition("|")[0]
        name = url.rpartition("/")[2]
        if name not in self.used:
            codes = self._expand(url)
            if not codes or sum(map(len, codes.values())) > LARGEST:
                return None
            self.used[name] = {system: " ".join(sorted(found)) for system, found in sorted(codes.items())}
        return name

    def _expand(self, url: str) -> dict[str, set[str]] | None:
        compose = self._sets.get(url, {}).get("compose", {})
        if not compose or compose.get("exclude"):
            return None
        found: dict[str, set[str]] = {}
        for include in compose["include"]:
            if include.get("filter"):
                return None
            for canonical in include.get("valueSet", ()):
                inner = self._expand(canonical.partition("|")[0])
                if inner is None:
                    return None
                for system, codes in inner.items():
                    found.setdefault(system, set()).update(codes)
            if "system" in include:
                listed = include.get("concept") or self._complete(include["system"])
                if listed is None:
                    return None
                found.setdefault(include["system"], set()).update(flatten(listed))
        return None if any(" " in code for codes in found.values() for code in codes) else found

    def _complete(self, system: str) -> list[Any] | None:
        resource = self._systems.get(system, {})
        return resource.get("concept") if resource.get("content") == "complete" else None


def _by_url(folder: Path, kind: str) -> dict[str, Any]:
    found = (orjson.loads(path.read_bytes()) for path in sorted(folder.glob(f"{kind}-*.json")))
    return {resource["url"]: resource for resource in found}


def flatten(concepts: list[dict[str, Any]]) -> set[str]:
    """All codes of a tree of concepts."""
    found = set()
    for concept in concepts:
        found.add(concept["code"])
        found |= flatten(concept.get("concept", []))
    return found


def main() -> None:
    """Write `elements.json`."""
    tables = build(Path(sys.argv[1]))
    lines = [f'{orjson.dumps(k).decode()}:{orjson.dumps(v).decode()}' for k, v in tables["types"].items()]
    sets = [f'{orjson.dumps(k).decode()}:{orjson.dumps(v).decode()}' for k, v in tables["valueSets"].items()]
    OUTPUT.write_text('{"fhirVersion":"4.0.1",\n"types":{\n' + ",\n".join(lines) + '\n},\n"valueSets":{\n'
                      + ",\n".join(sets) + "\n}}\n", "utf-8")


if __name__ == "__main__":
    main()
