"""Makes the catalogue's FHIR resources from its tables: ``python -m profiles.build [--check] FOLDER``.

``--check`` writes nothing and says what differs.

The JSON is the published form and what the program reads; the tables are the editors' form and live elsewhere. The
same tables always give the same bytes: one element or concept a line, so that a change of one row is a change of one
line.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from stdnum.iso7064 import mod_37_36

BASE = "http://huren.example/fhir"
ITEMS = f"{BASE}/CodeSystem/recognition-item"
PANELS = f"{BASE}/CodeSystem/recognition-panel"
CATEGORIES = f"{BASE}/CodeSystem/recognition-category"
LOINC = "http://loinc.org"
DCM = "http://dicom.nema.org/resources/ontology/DCM"

#: Raise with every change of the tables; consumers pin it, and verdicts of recognition cite it.
VERSION = "0.2.0"
DATE = "2026-11-22"

#: The notice that LOINC's licence (https://loinc.org/license) prescribes, word for word.
LOINC_NOTICE = (
    "This material contains content from LOINC (http://loinc.org). LOINC is copyright © 1995-2020, Regenstrief "
    "Institute, Inc. and the Logical Observation Identifiers Names and Codes (LOINC) Committee and is available at no "
    "cost under the license at http://loinc.org/license. LOINC® is a registered United States trademark of Regenstrief "
    "Institute, Inc")

Row = dict[str, str]
Resource = dict[str, Any]


class Column(NamedTuple):
    """A column of ``items.tsv`` and the concept property that it becomes."""

    column: str
    code: str
    type: str  # string, code, Coding, integer, boolean
    description: str
    system: str = ""


COLUMNS = (
    Column("domain", "domain", "string", "exam or test."),
    Column("category", "category", "Coding", "Kind of exam or section of the laboratory.", CATEGORIES),
    Column("specimen", "specimen", "string", "Specimen, as laboratories in China name it."),
    Column("modality", "modality", "Coding", "DICOM modality.", DCM),
    Column("body_site", "body-site", "string", "Body region, a word of this catalogue; + joins two."),
    Column("laterality", "sided", "boolean", "Ordered for the left, the right or both sides."),
    Column("contrast", "contrast", "string", "none, with, both (plain and enhanced) or na."),
    Column("result_type", "result-type", "string", "Q quantity, O ordinal, T text, C culture, or report."),
    Column("unit_ucum", "unit", "string", "Unit of the result, UCUM."),
    Column("parent_panel", "panel", "Coding", "An order panel that contains the item.", PANELS),
    Column("default_validity_days", "validity-days", "integer",
           "Proposed days within which an earlier result may be recognised; a region caps it, a hospital shortens it."),
    Column("published_days_wuhan", "published-days-wuhan", "integer", "Days that Wuhan has published."),
    Column("published_min_retest_uk", "published-min-retest-uk", "integer",
           "Smallest retest interval in days that the United Kingdom has published."),
    Column("rapid_change", "rapid-change", "boolean", "The result changes fast in the course of a disease."),
    Column("loinc_confidence", "loinc-confidence", "string",
           "How sure the LOINC code is: checked, read, loose or unchecked."),
    Column("note", "note", "string", "What an editor has to know."),
)
UNCHECKED = Column("loinc", "loinc-unchecked", "string",
                   "A LOINC code whose meaning nobody has checked: for editors, never for use.")

# A note of these says itself that LOINC's code is not exactly ours, whoever has read it; then it is not `equivalent`.
NOTES = {
    "LOINC generic": "wider",
    "LOINC region": "wider",
    "LOINC =": "inexact",
    "LOINC property": "inexact",
    "LOINC from memory": "",  # a remark on where the code was found, not on its meaning
}
#: full, advisory, none as ConceptMap.target.equivalence, read from the earlier item to the order.
_COVERAGE = {"full": "narrower", "advisory": "inexact", "none": "disjoint"}


class CatalogueError(Exception):
    """The tables contradict themselves; the message names file, line and what to correct."""


def resources(folder: Path) -> dict[str, Resource]:
    """File name → resource, for everything that the tables make."""
    items, panels, edges = (_rows(folder / name) for name in ("items.tsv", "panels.tsv", "coverage-edges.tsv"))
    _add_core(panels, _rows(Path(__file__).parent / "panel-core.tsv"))
    _check_items(items)
    _check_panels(items, panels)
    _check_edges(items, edges)
    made = [categories(items), item_system(items), panel_system(panels), *_value_sets(), loinc_map(items),
            panel_loinc_map(panels), coverage(edges)]
    return {f"{r['resourceType']}-{r['id']}.json": r for r in made}


def text(resource: Resource) -> str:
    """JSON with one concept, element or include a line."""
    return _lines(resource, 0) + "\n"


def tables(folder: Path) -> dict[str, bytes]:
    """The tables that the published JSON was made of: the way back, for editors who have the JSON only."""
    load = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in (
        "CodeSystem-recognition-item", "CodeSystem-recognition-panel", "CodeSystem-recognition-category",
        "ConceptMap-recognition-item-loinc", "ConceptMap-recognition-panel-loinc", "ConceptMap-recognition-coverage")}
    names = {c["code"]: c["display"] for c in load["CodeSystem-recognition-category"]["concept"]}
    loinc, panel_loinc = (_targets(load[f"ConceptMap-recognition-{kind}-loinc"]) for kind in ("item", "panel"))
    items = [_item_row(concept, names, loinc) for concept in load["CodeSystem-recognition-item"]["concept"]]
    panels = [_panel_row(concept, panel_loinc) for concept in load["CodeSystem-recognition-panel"]["concept"]]
    strength = {equivalence: name for name, equivalence in _COVERAGE.items()}
    edges = [{"prior_code": element["code"], "prior_name": element["display"], "order_code": target["code"],
              "order_name": target["display"], "coverage": strength[target["equivalence"]], "reason": target["comment"]}
             for element in load["ConceptMap-recognition-coverage"]["group"][0]["element"]
             for target in element["target"]]
    return {name: "".join("\t".join(cells) + "\n" for cells in (rows[0], *(row.values() for row in rows))).encode()
            for name, rows in (("items.tsv", items), ("panels.tsv", panels), ("coverage-edges.tsv", edges))}


def _targets(concept_map: Resource) -> dict[str, str]:
    return {e["code"]: e["target"][0]["code"] for e in concept_map["group"][0]["element"]}


def _cells(concept: Resource) -> dict[str, list[str]]:
    """Property code → values as cells."""
    found: dict[str, list[str]] = {}
    for prop in concept["property"]:
        value = next(value for key, value in prop.items() if key != "code")
        value = value["code"] if isinstance(value, dict) else "Y" if value is True else str(value)
        found.setdefault(prop["code"], []).append(value)
    return found


def _item_row(concept: Resource, categories: dict[str, str], loinc: dict[str, str]) -> Row:
    values = _cells(concept)
    cells = {c.column: ";".join(values.get(c.code, ["N"] if c.type == "boolean" else [])) for c in COLUMNS}
    row = {"unified_code": concept["code"], "domain": cells["domain"], "category": cells["category"],
           "category_zh": categories[cells["category"]], "name_zh": concept["display"],
           "name_en": concept["designation"][1]["value"]}
    for column, cell in cells.items():
        if column == "parent_panel":
            row["loinc"] = values.get(UNCHECKED.code, [loinc.get(concept["code"], "")])[0]
            row["loinc_confidence"] = cells["loinc_confidence"]
        row.setdefault(column, cell)
    return row


def _panel_row(concept: Resource, loinc: dict[str, str]) -> Row:
    values = _cells(concept)
    return {"panel_code": concept["code"], "name_zh": concept["display"],
            "name_en": concept["designation"][1]["value"], "loinc_panel": loinc.get(concept["code"], ""),
            "member_count": str(len(values["member"])), "members": ";".join(values["member"]),
            "core": ";".join(values.get("core", ())), "same_session": values.get("same-session", [""])[0]}


# ---------------------------------------------------------------------------------------------------- tables


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _require(ok: bool, file: str, line: int, sentence: str) -> None:
    if not ok:
        raise CatalogueError(f"{file}:{line}: {sentence}")


def _check_items(items: list[Row]) -> None:
    seen: set[str] = set()
    names: dict[str, str] = {}
    for line, row in enumerate(items, 2):
        code, category = row["unified_code"], row["category"]
        _require(mod_37_36.is_valid(code), "items.tsv", line, f"the check character of {code} is wrong")
        _require(code not in seen, "items.tsv", line, f"{code} stands twice")
        _require(code[1:3] == category and code[0] == {"exam": "E", "test": "T"}.get(row["domain"]), "items.tsv", line,
                 f"{code} does not fit its domain and category")
        _require(names.setdefault(category, row["category_zh"]) == row["category_zh"], "items.tsv", line,
                 f"category {category} has two names")
        _require(row["loinc_confidence"] in ("", "checked", "read", "loose", "unchecked")
                 and bool(row["loinc"]) == bool(row["loinc_confidence"]), "items.tsv", line,
                 "loinc and loinc_confidence go together")
        _require(row["laterality"] in "YN" and row["rapid_change"] in "YN", "items.tsv", line,
                 "laterality and rapid_change are Y or N")
        seen.add(code)


def _check_panels(items: list[Row], panels: list[Row]) -> None:
    """Both sides tell the same story: an item's panels and a panel's members, up to the panels not named by items."""
    of_item = {row["unified_code"]: set(filter(None, row["parent_panel"].split(";"))) for row in items}
    known = {row["panel_code"] for row in panels}
    for line, row in enumerate(panels, 2):
        members = row["members"].split(";")
        _require(len(members) == len(set(members)) == int(row["member_count"]), "panels.tsv", line,
                 "member_count is not the number of members")
        for member in members:
            _require(member in of_item, "panels.tsv", line, f"{member} is not an item")
            _require(row["panel_code"] in of_item[member], "panels.tsv", line, f"items.tsv does not put {member} here")
        for member in filter(None, row["core"].split(";")):
            _require(member in members, "panels.tsv", line, f"the core member {member} of {row['panel_code']} is none")
    listed = {(row["panel_code"], member) for row in panels for member in row["members"].split(";")}
    for line, row in enumerate(items, 2):
        for panel in of_item[row["unified_code"]]:
            _require(panel in known and (panel, row["unified_code"]) in listed, "items.tsv", line,
                     f"panels.tsv does not list this item under {panel}")


def _add_core(panels: list[Row], rows: list[Row]) -> None:
    """Core members and function tests, which the editors of the catalogue have not taken into ``panels.tsv`` yet."""
    known = {row["panel_code"]: row for row in rows}
    for panel in panels:
        for column in ("core", "same_session"):
            panel[column] = panel.get(column) or known.get(panel["panel_code"], {}).get(column, "")


def _check_edges(items: list[Row], edges: list[Row]) -> None:
    names = {row["unified_code"]: row["name_zh"] for row in items}
    for line, row in enumerate(edges, 2):
        for side in ("prior", "order"):
            _require(names.get(row[f"{side}_code"]) == row[f"{side}_name"], "coverage-edges.tsv", line,
                     f"{side}_code and {side}_name are not those of one item")
        _require(row["coverage"] in _COVERAGE and bool(row["reason"]), "coverage-edges.tsv", line,
                 "coverage is full, advisory or none, with a reason")


# ------------------------------------------------------------------------------------------------- resources


def head(kind: str, id_: str, name: str, title: str, description: str, **more: Any) -> Resource:
    return {"resourceType": kind, "id": id_, "url": f"{BASE}/{kind}/{id_}", "version": VERSION, "name": name,
            "title": title, "status": "active", "experimental": False, "date": DATE, "publisher": "Huren",
            "description": description, **more}


def _properties(columns: Iterable[Column]) -> list[Resource]:
    return [{"code": c.code, "uri": f"{ITEMS}#{c.code}", "description": c.description, "type": c.type}
            for c in columns]


def _names(row: Row) -> Resource:
    return {"display": row["name_zh"], "designation": [{"language": "zh-CN", "value": row["name_zh"]},
                                                       {"language": "en", "value": row["name_en"]}]}


def _values(column: Column, cell: str) -> list[Resource]:
    """The properties of one cell; an empty cell has none, a cell with ``;`` several."""
    if column.type == "boolean":
        return [{"code": column.code, "valueBoolean": True}] if cell == "Y" else []
    if not cell:
        return []
    if column.type == "integer":
        return [{"code": column.code, "valueInteger": int(cell)}]
    if column.type == "Coding":
        return [{"code": column.code, "valueCoding": {"system": column.system, "code": code}}
                for code in cell.split(";")]
    return [{"code": column.code, "valueString": cell}]


def _item_concept(row: Row) -> Resource:
    properties = [value for column in COLUMNS for value in _values(column, row[column.column])]
    if row["loinc_confidence"] == "unchecked":
        properties += _values(UNCHECKED, row["loinc"])
    return {"code": row["unified_code"], **_names(row), "property": properties}


def item_system(items: list[Row]) -> Resource:
    """The items as a CodeSystem."""
    return head(
        "CodeSystem", "recognition-item", "RecognitionItem", "Unified items for mutual recognition",
        "One code for each exam and laboratory test whose result hospitals recognise from each other. A code is D CC "
        "NNN K: domain (E exam, T test), category, serial and an ISO 7064 MOD 37,36 check character; it is never used "
        "again. Boolean properties stand only where they are true. Validity days are proposals that want a clinician's "
        "review.",
        language="zh-CN", copyright=LOINC_NOTICE, caseSensitive=True,
        valueSet=f"{BASE}/ValueSet/recognition-item", compositional=False,
        versionNeeded=False, content="complete", count=len(items),
        filter=[{"code": c, "description": f"Items by {c}.", "operator": ["="], "value": "A value of the property."}
                for c in ("domain", "category", "panel")],
        property=_properties((*COLUMNS, UNCHECKED)), concept=[_item_concept(row) for row in items])


def panel_system(panels: list[Row]) -> Resource:
    """The panels as a CodeSystem."""
    properties = [{"code": code, "uri": f"{PANELS}#{code}", "description": description, "type": kind}
                  for code, description, kind in (
                      ("member", "An item of the panel; the order is that of the report.", "Coding"),
                      ("core", "A member without which an earlier panel does not cover the order; none: all are.",
                       "Coding"),
                      ("same-session", "A function test: its members count only from one encounter.", "boolean"))]

    def values(row: Row) -> list[Resource]:
        coded = [{"code": code, "valueCoding": {"system": ITEMS, "code": item}}
                 for code, column in (("member", "members"), ("core", "core"))
                 for item in row[column].split(";") if item]
        return [*coded, {"code": "same-session", "valueBoolean": True}] if row["same_session"] == "Y" else coded

    return head(
        "CodeSystem", "recognition-panel", "RecognitionPanel", "Order panels",
        "Panels that are ordered as one and the unified items that they contain.", language="zh-CN",
        caseSensitive=True, valueSet=f"{BASE}/ValueSet/recognition-panel", compositional=False, versionNeeded=False,
        content="complete", count=len(panels), property=properties,
        concept=[{"code": row["panel_code"], **_names(row), "property": values(row)} for row in panels])


def categories(items: list[Row]) -> Resource:
    """The items' categories as a CodeSystem."""
    found = {row["category"]: row for row in items}
    domain = {"code": "domain", "uri": f"{CATEGORIES}#domain", "description": "exam or test.", "type": "string"}
    return head(
        "CodeSystem", "recognition-category", "RecognitionCategory", "Categories of unified items",
        "Kinds of exam and sections of the laboratory.", language="zh-CN", caseSensitive=True, compositional=False,
        versionNeeded=False, content="complete", count=len(found), property=[domain],
        concept=[{"code": code, "display": row["category_zh"],
                  "property": [{"code": "domain", "valueString": row["domain"]}]} for code, row in found.items()])


def _value_sets() -> list[Resource]:
    def value_set(id_: str, name: str, title: str, system: str, domain: str = "") -> Resource:
        include: Resource = {"system": system}
        if domain:
            include["filter"] = [{"property": "domain", "op": "=", "value": domain}]
        return head("ValueSet", id_, name, title, f"{title}, by their own codes.", compose={"include": [include]})

    return [value_set("recognition-item", "RecognitionItems", "All unified items", ITEMS),
            value_set("recognition-exam", "RecognitionExams", "Unified items that are exams", ITEMS, "exam"),
            value_set("recognition-test", "RecognitionTests", "Unified items that are laboratory tests", ITEMS, "test"),
            value_set("recognition-panel", "RecognitionPanels", "All order panels", PANELS)]


def _equivalence(row: Row, line: int) -> tuple[str, str]:
    """ConceptMap equivalence and the comment that R4 asks for where it is not ``equivalent`` (cmd-1)."""
    confidence, note = row["loinc_confidence"], row["note"]
    remarks = [equivalence for start, equivalence in NOTES.items() if note.startswith(start)]
    _require(not note.startswith("LOINC") or bool(remarks), "items.tsv", line,
             "a note that begins with LOINC must say one of: " + ", ".join(NOTES))
    if confidence == "loose":
        return "inexact", "Property, specimen or method is not exactly the item's." + (f" {note}." if note else "")
    if remarks and remarks[0]:
        return remarks[0], note
    return "equivalent", ""


def loinc_map(items: list[Row]) -> Resource:
    """The items' LOINC codes as a ConceptMap."""
    elements = []
    for line, row in enumerate(items, 2):
        if row["loinc_confidence"] in ("", "unchecked"):
            continue
        equivalence, comment = _equivalence(row, line)
        target = {"code": row["loinc"], "equivalence": equivalence, **({"comment": comment} if comment else {})}
        elements.append({"code": row["unified_code"], "display": row["name_zh"], "target": [target]})
    return head(
        "ConceptMap", "recognition-item-loinc", "RecognitionItemToLoinc", "Unified items to LOINC",
        "LOINC codes of unified items. Only a code whose meaning was compared or read, and of which no note says "
        "otherwise, is equivalent; codes that nobody has checked are left out.", copyright=LOINC_NOTICE,
        sourceUri=f"{BASE}/ValueSet/recognition-item", targetUri="http://loinc.org/vs",
        group=[{"source": ITEMS, "target": LOINC, "element": elements}])


def panel_loinc_map(panels: list[Row]) -> Resource:
    """The panels' LOINC codes as a ConceptMap."""
    elements = [{"code": row["panel_code"], "display": row["name_zh"],
                 "target": [{"code": row["loinc_panel"], "equivalence": "relatedto",
                             "comment": "The members have not been compared."}]}
                for row in panels if row["loinc_panel"]]
    return head(
        "ConceptMap", "recognition-panel-loinc", "RecognitionPanelToLoinc", "Order panels to LOINC",
        "LOINC panels that are close to ours. Their members differ or were not compared, so none is equivalent.",
        copyright=LOINC_NOTICE, sourceUri=f"{BASE}/ValueSet/recognition-panel", targetUri="http://loinc.org/vs",
        group=[{"source": PANELS, "target": LOINC, "element": elements}])


def coverage(edges: list[Row]) -> Resource:
    """The coverage edges as a ConceptMap."""
    elements: dict[str, Resource] = {}
    for row in edges:
        element = elements.setdefault(row["prior_code"], {"code": row["prior_code"], "display": row["prior_name"],
                                                          "target": []})
        element["target"].append({"code": row["order_code"], "display": row["order_name"],
                                  "equivalence": _COVERAGE[row["coverage"]], "comment": row["reason"]})
    return head(
        "ConceptMap", "recognition-coverage", "RecognitionCoverage", "Which earlier item covers which order",
        "From an earlier item to an order that it covers: narrower = full (the order asks for no more than the earlier "
        "item gave), inexact = advisory (a clinician decides), disjoint = none (looks alike and does not cover). The "
        "comment is the reason. No clinician has reviewed it yet.",
        status="draft", experimental=True, sourceUri=f"{BASE}/ValueSet/recognition-item",
        targetUri=f"{BASE}/ValueSet/recognition-item",
        group=[{"source": ITEMS, "target": ITEMS, "element": list(elements.values())}])


# ------------------------------------------------------------------------------------------------------ text


def _lines(value: Any, depth: int) -> str:
    """JSON with line breaks down to the elements of ``concept``, ``element`` and other lists, each on its line."""
    pad = "  " * (depth + 1)
    if isinstance(value, dict) and depth < 4 and (depth == 0 or any(k in value for k in ("element", "include"))):
        inner = ",\n".join(f"{pad}{_flat(key)}: {_lines(item, depth + 1)}" for key, item in value.items())
        return "{\n" + inner + "\n" + "  " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict) and depth < 4:
        inner = ",\n".join(pad + _lines(item, depth + 1) for item in value)
        return "[\n" + inner + "\n" + "  " * depth + "]"
    return _flat(value)


def _flat(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def main(arguments: list[str], say: Callable[[str], None] = print) -> int:
    """0: written, or with ``--check`` nothing differs; 1: something does; 2: wrong usage."""
    check = "--check" in arguments
    folders = [a for a in arguments if a != "--check"]
    if len(folders) != 1 or not Path(folders[0]).is_dir():
        say("usage: python -m profiles.build [--check] FOLDER-WITH-items.tsv-panels.tsv-coverage-edges.tsv")
        return 2
    here = Path(__file__).parent
    try:
        made = resources(Path(folders[0]))
    except CatalogueError as error:
        say(str(error))
        return 1
    differing = [name for name, resource in made.items()
                 if not (here / name).is_file() or (here / name).read_text("utf-8") != text(resource)]
    for name in differing:
        if not check:
            (here / name).write_text(text(made[name]), "utf-8")
        say(f"{'differs' if check else 'written'}: {name}")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
