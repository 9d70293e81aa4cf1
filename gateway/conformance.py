"""The rules that every hospital folder keeps, found and run for whatever folder there is; and the files of a new one.

A hospital that cannot keep a rule names it under ``[exempt]`` in its manifest with the reason in words.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import hl7v2, terminology
from gateway.adapter import Adapter, load, load_all
from gateway.errors import Category, GatewayError
from gateway.fhir import check as fhir_check
from gateway.fhir import json as fhir_json
from gateway.source import Conversion, Resource, message_digest, original_id

#: What a hook may import: the standard library's pure parts and `gateway.adapter`.
_HOOK_IMPORTS = {"gateway.adapter", "__future__", "re", "decimal", "datetime", "collections", "itertools", "functools",
                 "typing", "dataclasses", "string", "math", "unicodedata"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a folder does not keep. ``exempt`` holds the manifest's reason when it has one."""

    rule: str
    where: str
    message: str
    exempt: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """One input of ``examples/`` and what is expected of it."""

    path: Path
    expected: Path  # .json, or .refused

    @property
    def accepted(self) -> bool:
        """Whether the input is to be accepted."""
        return self.expected.suffix == ".json"


def examples(folder: Path) -> list[Example]:
    """Every ``*.hl7`` and ``*.dcm.json`` of the folder's examples, in order of name."""
    found = []
    inputs = [*(folder / "examples").glob("*.hl7"), *(folder / "examples").glob("*.dcm.json")]
    for path in sorted(inputs):
        stem = path.name.removesuffix(".hl7").removesuffix(".dcm.json")
        refused = path.with_name(stem + ".refused")
        found.append(Example(path, refused if refused.exists() else path.with_name(stem + ".json")))
    return found


def convert_example(adapter: Adapter, path: Path) -> Conversion:
    """What an example becomes: exactly what the pipeline would store, checked as the pipeline checks."""
    if path.suffix == ".hl7":
        message = adapter.parse(path.read_bytes())
        conversion = adapter.convert_hl7(message, hl7v2.peek(path.read_bytes()).sending_facility)
    else:
        from gateway import imaging
        from gateway.imaging.part10 import part10_from_json

        facts = [imaging.read_header(part10, adapter.source.dicom_charset)
                 for part10 in part10_from_json(path.read_text(encoding="utf-8"))]
        conversion = adapter.convert_study(facts, next(iter(adapter.calling_aets), ""))
    return checked(conversion)


def checked(conversion: Conversion) -> Conversion:
    """The conversion, every resource held against FHIR and our profile as the pipeline does; INVALID otherwise."""
    for change in conversion.changes:
        fhir_check.require_valid(change.resource, profile=True)
    return conversion


def refusal_of(adapter: Adapter, path: Path) -> str | None:
    """``category place`` when the example is refused, else None."""
    try:
        convert_example(adapter, path)
    except GatewayError as error:
        return f"{error.category.value} {error.where}".strip()
    return None


# -------------------------------------------------------------------------------------------------- rules

Rule = Callable[[Adapter], Iterator[tuple[str, str]]]
RULES: dict[str, Rule] = {}


def _rule(function: Rule) -> Rule:
    RULES[function.__name__.strip("_").replace("_", "-")] = function
    return function


@_rule
def _has_examples(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """At least one accepted and one refused example."""
    kinds = {e.accepted for e in examples(adapter.folder)}
    if True not in kinds:
        yield "examples", "add a message that the hospital once sent and `huren adapter golden` accepts"
    if False not in kinds:
        yield "examples", "add a message that must be refused, and its .refused file"


@_rule
def _examples_convert_as_written(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """Accepted: exactly the resources of the .json file; refused: category and place of the .refused file."""
    for example in examples(adapter.folder):
        name = example.path.name
        try:
            got = expected_text(adapter, example.path)
            if not example.accepted:
                yield name, "was accepted, but has a .refused file"
            elif not example.expected.exists():
                yield name, "has no expected file; look at what it becomes, then run `huren adapter golden`"
            elif got != example.expected.read_text(encoding="utf-8"):
                yield name, "becomes something else than its .json; look at the difference, then `huren adapter golden`"
        except GatewayError as error:
            said = f"{error.category.value} {error.where}".strip()
            if example.accepted:
                yield name, f"was refused: {error}"
            elif (wanted := example.expected.read_text(encoding="utf-8").strip()) != said:
                yield name, f"was refused as '{said}', expected '{wanted}'"


@_rule
def _own_manifest_selects_it(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """The sender named in each HL7v2 example is one that this manifest claims."""
    for example in examples(adapter.folder):
        if example.path.suffix != ".hl7" or adapter.per_facility:
            continue
        header = hl7v2.peek(example.path.read_bytes())
        if header.sending_facility not in adapter.sending_facility:
            yield example.path.name, "MSH-4 is not in [hl7v2] sending_facility"


@_rule
def _same_input_same_output(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """Converting twice gives the same text."""
    for path, conversion in _conversions(adapter):
        if _text(conversion) != _text(convert_example(adapter, path)):
            yield path.name, "gave two different results; a hook or conversion uses a clock, a random or a global"


@_rule
def _references_resolve(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """Every relative reference points to a resource that the same example makes, or another one: a report's images; or
    to the message itself."""
    conversions = list(_conversions(adapter))
    made = {f"{r['resourceType']}/{r['id']}" for _, conversion in conversions for r in _resources(conversion)}
    made |= {f"Binary/{original_id(message_digest('hl7v2', path.read_bytes()))}" for path, _ in conversions}
    for path, conversion in conversions:
        for resource in _resources(conversion):
            for reference in _references(resource):
                if reference not in made:
                    yield path.name, f"{resource['resourceType']} refers to {reference.split('/')[0]} that is not there"


@_rule
def _tells_the_institution(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """meta.source of every resource is the institution's."""
    for path, conversion in _conversions(adapter):
        for resource in _resources(conversion):
            source = resource.get("meta", {}).get("source", "")
            if not source.startswith(f"urn:huren:{adapter.source.institution}"):
                yield path.name, f"{resource['resourceType']} has no meta.source of this institution"


@_rule
def _keeps_the_local_code(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """Each Observation, DiagnosticReport and ServiceRequest keeps the code that the hospital sent."""
    for path, conversion in _conversions(adapter):
        for resource in _resources(conversion):
            if resource["resourceType"] in ("Observation", "DiagnosticReport", "ServiceRequest"):
                systems = {c.get("system") for c in resource.get("code", {}).get("coding", ())}
                if not systems - {terminology.ITEMS, terminology.PANELS}:
                    yield path.name, f"{resource['resourceType']}.code has lost the hospital's own code"


@_rule
def _codes_are_mapped(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """The codes of the examples are mapped to unified items."""
    for path, conversion in _conversions(adapter):
        for unmapped in conversion.unmapped:
            yield path.name, f"{unmapped.where}: local code '{unmapped.local}' has no item in codes.csv"


@_rule
def _hooks_stay_inside(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """hooks.py imports gateway.adapter and pure standard modules only."""
    path = adapter.folder / "hooks.py"
    if not path.exists():
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [node.module or "."] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        for name in names:
            if name not in _HOOK_IMPORTS and name.split(".")[0] not in _HOOK_IMPORTS:
                yield f"hooks.py:{node.lineno}", f"imports {name}; a hook sees gateway.adapter only"


@_rule
def _exemptions_have_reasons(adapter: Adapter) -> Iterator[tuple[str, str]]:
    """[exempt] names rules that exist, each with its reason."""
    for rule in adapter.exempt:
        if rule not in RULES:
            yield "manifest.toml", f"[exempt] names '{rule}'; the rules are {', '.join(RULES)}"


def check(folder: Path) -> list[Finding]:
    """Every rule over one hospital folder; findings with ``exempt`` set are excused by the manifest."""
    try:
        adapter = load(folder)
    except GatewayError as error:
        return [Finding("loads", error.where, error.message)]
    return [Finding(name, where, message, adapter.exempt.get(name, ""))
            for name, rule in RULES.items() for where, message in rule(adapter)]


def check_together(parents: Iterable[Path]) -> list[Finding]:
    """What only shows over all folders: two hospitals that claim the same sender."""
    try:
        load_all(parents)
    except GatewayError as error:
        return [Finding("one-sender-one-hospital", error.where, error.message)]
    return []


# -------------------------------------------------------------------------------------------------- files

def expected_text(adapter: Adapter, path: Path) -> str:
    """What the expected file of an example holds: a JSON array of its resources, two blanks of indent, decimals as they
    are; behind them what else the message does.

    ``{"amended": …}`` is a resource that is made on top of what the examples before it (in order of name) left: one
    that the message changes and does not carry, or one that it carries in part. ``{"order": …}`` and ``{"charge": …}``
    are its order lines and charges, ``{"document": …}`` names bytes that go to the object store, ``{"remark": …}`` what
    the sender is told.
    """
    conversion = convert_example(adapter, path)
    amending = conversion.amendments or conversion.snapshots or any(change.onto for change in conversion.changes)
    return _text(conversion, _amended(conversion, _stored_before(adapter, path)) if amending else ())


def _text(conversion: Conversion, amended: Iterable[Resource] = ()) -> str:
    beside: list[dict[str, Any]] = [{"amended": one} for one in amended]
    beside += [{"order": o.number, "control": o.control, "status": o.status, "fresh": o.fresh, "where": o.place,
                "request": f"ServiceRequest/{o.request}"} for o in conversion.orders]
    beside += [{"charge": c.number or c.filler, "credit": c.credit, "where": c.place} for c in conversion.charges]
    beside += [{"document": f"Binary/{d.id}", "contentType": d.content_type, "size": len(d.data)}
               for d in conversion.documents]
    beside += [{"remark": r.sentence, "where": r.where} for r in conversion.remarks]
    compact = fhir_json.dumps([*_resources(conversion), *beside])
    # The standard library indents but rewrites 1.50 as 1.5: decimals pass through it as marked texts.
    marked = json.dumps(json.loads(compact, parse_float=lambda text: "\0" + text), ensure_ascii=False, indent=2)
    return re.sub(r'"\\u0000([^"]*)"', r"\1", marked) + "\n"


_Stored = dict[tuple[str, str], tuple[Resource, int | None]]  # by type and id, with what it is valid as of


def _stored_before(adapter: Adapter, path: Path) -> _Stored:
    """What the examples before this one leave, as if each had come in its turn."""
    stored: _Stored = {}
    for earlier, conversion in _conversions(adapter):
        if earlier >= path:
            break
        try:
            amended = {_key(one): one for one in _amended(conversion, stored)}
        except GatewayError:  # NOT_FOUND, CONFLICT: nothing of it is stored
            continue
        for change in conversion.changes:
            key = _key(change.resource)
            _, as_of = stored.get(key, (None, None))
            newer = as_of is None or change.as_of is None or change.as_of >= as_of
            if newer or change.onto:
                stored[key] = amended.pop(key, change.resource), change.as_of if newer else as_of
        stored.update((key, (one, stored.get(key, (None, None))[1])) for key, one in amended.items())
    return stored


def _key(resource: Resource) -> tuple[str, str]:
    return resource["resourceType"], resource["id"]


def _amended(conversion: Conversion, stored: _Stored) -> Iterator[Resource]:
    """What amendments, snapshots (`Source.id_within`: parts begin as their whole) and changes onto something stored
    make of it."""
    for change in conversion.changes:
        if change.onto is not None and (known := stored.get(_key(change.resource))):
            late = None not in (known[1], change.as_of) and known[1] > change.as_of  # type: ignore[operator]
            if (made := change.onto(deepcopy(known[0]), deepcopy(change.resource), late)) != change.resource:
                yield made
    for amendment in conversion.amendments:
        held = stored.get((amendment.resource_type, amendment.id), (None, None))[0]
        if changed := amendment.change(deepcopy(held)):
            yield changed
    told = {_key(change.resource) for change in conversion.changes}
    for snapshot in conversion.snapshots:
        begin = f"{snapshot.whole[:13]}-8"
        for (kind, part), (one, _) in stored.items():
            if kind == snapshot.resource_type and part.startswith(begin) and part not in snapshot.kept \
                    and (kind, part) not in told and (retired := snapshot.retire(deepcopy(one))):
                yield retired


def golden(folder: Path) -> list[Path]:
    """Rewrite the expected files of every example; returns the files that changed."""
    adapter, changed = load(folder), []
    for example in examples(folder):
        stem = example.expected.with_suffix("")
        try:
            path, text = stem.with_suffix(".json"), expected_text(adapter, example.path)
            other = stem.with_suffix(".refused")
        except GatewayError as error:
            path, text = stem.with_suffix(".refused"), f"{error.category.value} {error.where}".strip() + "\n"
            other = stem.with_suffix(".json")
        other.unlink(missing_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def new(folder: Path) -> list[Path]:
    """Scaffold a hospital folder that loads; INVALID when it is there already."""
    if folder.exists() and any(folder.iterdir()):
        raise GatewayError(Category.INVALID, f"'{folder}' is there already; choose another name", "NAME")
    slug = folder.name.lower().replace("_", "-")
    files = {folder / "manifest.toml": _NEW_MANIFEST.format(slug=slug, facility=slug.upper()),
             folder / "codes.csv": "local,item,display,unit\n",
             folder / "examples" / "README": _NEW_EXAMPLES}
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


_NEW_MANIFEST = """\
[institution]
id = "{slug}"                          # slug; also the Organization id
name = "{slug}"                        # as people read it
code_system = "urn:huren:{slug}:item"  # the hospital's own test and exam codes
quality = []                           # unified items whose external quality assessment is valid, or "all"

[hl7v2]
sending_facility = ["{facility}"]      # MSH-4 values that select this folder
addresses = []                         # from where it may send, such as "10.1.0.0/16"; empty: from anywhere
# charset = "gb18030"                  # wins over MSH-18; leave out to trust MSH-18
timezone = "Asia/Shanghai"

# [hl7v2.tables."OBX-8"]               # the hospital's own values → the standard's
# "↑" = "H"

[dicom]
calling_aets = []

[exempt]
has-examples = "just scaffolded: put real messages into examples/, then remove this line"
"""
_NEW_EXAMPLES = """\
Put what the hospital sends here, one message a file: 01-cbc-final.hl7 (the bytes as sent), 02-chest-ct.dcm.json (DICOM
JSON). Then run `huren adapter golden` on the folder, read what each became, and `huren adapter check`.
"""


# -------------------------------------------------------------------------------------------------- helpers

def _conversions(adapter: Adapter) -> Iterator[tuple[Path, Conversion]]:
    for example in examples(adapter.folder):
        if example.accepted:
            try:
                yield example.path, convert_example(adapter, example.path)
            except GatewayError:  # told by examples-convert-as-written
                continue


def _resources(conversion: Conversion) -> list[Resource]:
    return [change.resource for change in conversion.changes]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("reference")
        if isinstance(reference, str) and not reference.startswith(("#", "urn:", "http")):
            yield reference
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
