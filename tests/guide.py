"""HL7's v2-to-FHIR guide as test cases: its rows, a message that fills a row's field, and whether the target holds it.

The tables lie beside the repository; tests that use them are skipped where they do not.
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from gateway import hl7v2
from gateway.adapter import Adapter, load
from gateway.errors import GatewayError
from gateway.source import Conversion

ROOT = Path(__file__).parents[1]
GUIDE = ROOT.parent / "shared" / "reference" / "v2-to-fhir"
GENERIC: Adapter = load(ROOT / "adapters" / "generic")
DECISIONS = Path(__file__).parent / "guide_decisions.toml"

#: What the guide misspells, or writes in a notation of its own.
_SPELLING = {"valueSampedData": "valueSampledData", ".sytem": ".system", ".uri": ".url",
             "valuedateTime": "valueDateTime", "$this": "", "name=": "name", "code.coding.value": "code.coding.code",
             "content[3].url": "content[3].attachment.url"}
#: Assignments that the guide has in the wrong cell.
_MISPLACED = {"PV1[Encounter] PV1-42 location[4].location(Location)": "", "PV1[Encounter] PV1-42 location[4].status":
              '"reserved"', "PV1[Encounter] PV1-8 participant[2].individual(Practitioner)": ""}
_STEP = re.compile(r"\.?([A-Za-z_]\w*)?(?:\[(\w*)\]?)?")


@dataclass(frozen=True)
class Row:
    """One line of a map that names a target."""

    map: str  # OBX[Observation]
    place: str  # OBX-5; the segment alone where no field is the source
    data_type: str
    condition: str
    path: str
    target_type: str
    type_map: str
    table: str
    assigned: str
    key: str = ""

    @property
    def segment(self) -> str:
        """OBX."""
        return self.map[:3]

    @property
    def field(self) -> int:
        """5; 0 where the row is about the whole segment."""
        return int(self.place.partition("-")[2] or 0)

    @property
    def target(self) -> str:
        """Observation."""
        return self.map[4:-1]


def tables(folder: str, kind: str) -> dict[str, list[list[str]]]:
    """Map name → its lines without the two of headings."""
    found = {}
    for path in sorted((GUIDE / folder).glob(f"HL7 {kind}*.csv")):
        name = re.search(r"(?:R4_|Map_) (.*?) - ", path.name)
        assert name, path.name
        with path.open(encoding="utf-8-sig", newline="") as lines:
            found[name[1]] = [line for line in list(csv.reader(lines))[2:] if any(line)]
    return found


@cache
def segment_rows() -> list[Row]:
    """Every settled row of the segment maps."""
    return _rows(tables(".", "Segment"))


@cache
def datatype_rows() -> list[Row]:
    """Every settled row of the data type maps."""
    return _rows(tables("datatypes", "Data Type"))


def _rows(maps: dict[str, list[list[str]]]) -> list[Row]:
    found: list[Row] = []
    seen: dict[str, int] = {}
    for name, lines in maps.items():
        for line in lines:
            line = [cell.strip() for cell in line] + [""] * 20
            if not line[9] or len(line[9]) > 200:
                continue
            path, assigned = line[9], line[16].strip()
            if match := re.fullmatch(r'(.*?)="(.*)"', path):
                path, assigned = match[1], f'"{match[2]}"'
            assigned = _MISPLACED.get(f"{name} {line[1]} {path}", assigned)
            for wrong, right in _SPELLING.items():
                path = path.replace(wrong, right)
            row = Row(name, line[1] or name[:name.index("[")], line[3], line[6] or line[7] or line[8], path, line[11],
                      line[14], line[15], assigned)
            key = f"{name} {row.place} {line[9]}"
            seen[key] = seen.get(key, 0) + 1
            found.append(Row(**{**row.__dict__, "key": f"{key} #{seen[key]}" if seen[key] > 1 else key}))
    return found


@cache
def code_rows() -> dict[str, list[tuple[str, str, str, str]]]:
    """Table map → (v2 code, FHIR code, display, system) of each line that maps a code without a condition."""
    found = {}
    for name, lines in tables("tables", "Concept Map").items():
        rows = [[cell.strip() for cell in line] + [""] * 12 for line in lines]
        found[name] = [(r[0], r[6], r[8], r[9]) for r in rows if r[0] and r[6] and not (r[3] or r[4] or r[5])]
    return found


@cache
def decisions() -> dict[str, tuple[str, str]]:
    """Row key → what we do instead, and why."""
    found: dict[str, tuple[str, str]] = {}
    for one in tomllib.loads(DECISIONS.read_text(encoding="utf-8"))["decision"]:
        for row in one["rows"]:
            assert row not in found, f"{row} is decided twice"
            found[row] = one["instead"], one["why"]
    return found


def decided(key: str) -> tuple[str, str] | None:
    """The decision on a row; one that ends in ``*`` holds for all rows that begin so."""
    known = decisions()
    return known.get(key) or next((known[k] for k in known if k.endswith("*") and key.startswith(k[:-1])), None)


# ---------------------------------------------------------------- messages

#: What each kind of message must have; the row's field is put in beside.
_PID = {3: "P1^^^H^MR"}
_PV1 = {2: "I", 19: "V1"}
_OBR = {1: "1", 2: "O1", 3: "F1", 4: "S1^Service^L", 22: "20240102030405", 25: "F"}
_OBX = {1: "1", 2: "NM", 3: "T1^Test^L", 5: "7.5", 11: "F"}
_SPM = {1: "1", 2: "&^SP1&"}
_ORC = {1: "NW"}
_SCH = {1: "A1^H", 2: "A2^H", 6: "N^New", 11: "^^60^20240301100000^20240301110000", 25: "Booked"}
_TXA = {1: "1", 2: "CN^Note^L", 3: "TX", 12: "D1^H", 17: "AU"}
_AIL = {1: "1", 2: "A", 3: "R1^^^H"}
TEMPLATES: dict[str, tuple[str, list[tuple[str, dict[int, str]]]]] = {
    "ORU": ("ORU^R01^ORU_R01", [("PID", _PID), ("PV1", _PV1), ("ORC", {1: "RE"}), ("OBR", _OBR), ("NTE", {1: "1"}),
                                ("OBX", _OBX), ("NTE", {1: "1"}), ("SPM", _SPM)]),
    "ORU-OBR": ("ORU^R01^ORU_R01", [("PID", _PID), ("OBR", _OBR), ("OBX", _OBX)]),
    "OML": ("OML^O21^OML_O21", [("PID", _PID), ("PV1", _PV1), ("ORC", _ORC), ("OBR", {1: "1", 4: "S1^Service^L",
                                                                                     2: "O1"}), ("NTE", {1: "1"})]),
    "ADT": ("ADT^A08^ADT_A01", [("EVN", {2: "20240102030405"}), ("PID", _PID), ("PV1", _PV1)]),
    "MERGE": ("ADT^A40^ADT_A39", [("EVN", {2: "20240102030405"}), ("PID", _PID), ("MRG", {1: "P2^^^H^MR"})]),
    "MDM": ("MDM^T02^MDM_T02", [("EVN", {2: "20240102030405"}), ("PID", _PID), ("PV1", _PV1), ("TXA", _TXA),
                                ("OBX", {**_OBX, 2: "TX", 5: "text"}), ("NTE", {1: "1"})]),
    "SIU": ("SIU^S12^SIU_S12", [("SCH", _SCH), ("NTE", {1: "1"}), ("PID", _PID), ("PV1", _PV1), ("RGS", {1: "1"}),
                                ("AIL", _AIL)]),
}
#: Map → the message that it is tested in, and which of several segments of the name it is about.
_HOMES: dict[str, tuple[str, int]] = {
    "MSH[Encounter]": ("ADT", 0), "NTE[Observation]": ("ORU", 1), "NTE[ServiceRequest]": ("OML", 0),
    "NTE[DocumentReference]": ("MDM", 0), "NTE[Appointment-Comment]": ("SIU", 0), "OBR[Specimen]": ("ORU-OBR", 0),
    "OBR[ServiceRequest]": ("OML", 0), "ORC[ServiceRequest]": ("OML", 0), "ORC[Provenance]": ("OML", 0),
    "OBX[DocumentReference]": ("MDM", 0), "PID[Appointment]": ("SIU", 0), "MRG[Account]": ("MERGE", 0),
    "MSA[MessageHeader]": ("ORU", 0),
}


def message(kind: str, fields: dict[tuple[str, int, int], str]) -> bytes:
    """A message of a kind with other fields: (segment, which of them, field) → text; "" takes one out."""
    event, template = TEMPLATES[kind]
    header = {3: "APP", 4: "FAC", 5: "REC", 6: "RFAC", 7: "20240102030405", 9: event, 10: "1", 11: "P", 12: "2.5.1"}
    lines = []
    counts: dict[str, int] = {}
    for name, given in [("MSH", header), *template]:
        at = counts[name] = counts.get(name, -1) + 1
        values = {**given, **{field: text for (segment, which, field), text in fields.items()
                              if segment == name and which == at}}
        cells = [values.get(number, "") for number in range(1, max(values) + 1)]
        lines.append("MSH|^~\\&|" + "|".join(cells[2:]) if name == "MSH" else f"{name}|" + "|".join(cells))
    return "\r".join(lines).encode()


@cache
def converted(raw: bytes) -> Conversion | GatewayError:
    """What the ``generic`` adapter makes of a message."""
    try:
        return GENERIC.convert_hl7(GENERIC.parse(raw), hl7v2.peek(raw).sending_facility)
    except GatewayError as refusal:
        return refusal


# ---------------------------------------------------------------- values

def marker(segment: str, field: int) -> str:
    """A text that stands nowhere else in a message."""
    return f"Z{segment}{field}"


def moment(segment: str, field: int) -> str:
    """A time that stands nowhere else in a message."""
    day = date(2019, 1, 1) + timedelta(days=sum(map(ord, segment)) * 100 % 2000 + field)
    return f"{day:%Y%m%d}112233"


def sample(data_type: str, segment: str, field: int, type_map: str = "") -> tuple[str, list[str]]:
    """A text of a data type for a field, and what must be found of it in the target."""
    m, at = marker(segment, field), moment(segment, field)
    iso = f"{at[:4]}-{at[4:6]}-{at[6:8]}"
    digits = f"5550{sum(map(ord, segment)):04}{field:02}"
    if data_type in ("CWE", "CE", "CNE", "CF", "SPS"):
        return ((f"{m}&Text {m}&99ZZ" if data_type == "SPS" else f"{m}^Text {m}^99ZZ"), [m, f"Text {m}"])
    made: dict[str, tuple[str, list[str]]] = {
        "ST": (f"{m} text", [f"{m} text"]), "TX": (f"{m} text", [f"{m} text"]), "FT": (f"{m} text", [f"{m} text"]),
        "ID": (m, [m]), "IS": (m, [m]), "NM": ("731.25", ["731.25"]), "SI": ("7", ["7"]),
        "DTM": (at, [iso]), "TS": (at, [iso]), "DT": (at[:8], [iso]), "TM": ("112233", ["11:22:33"]),
        "CX": (f"{m}^^^H{m}&1.2.3.{field}&ISO^MR", [m]), "EI": (f"{m}^N{m}", [m]),
        "EIP": (f"P{m}&N{m}^F{m}&N{m}", [f"F{m}" if "Filler" in type_map else f"P{m}"]),
        "HD": (f"{m}^1.2.840.99.{field}^ISO", [f"1.2.840.99.{field}"]),
        "XPN": (f"Fam{m}^Giv{m}^^^^^L", [f"Fam{m}"]), "XAD": (f"Street {m}^^City{m}^^10000^CHN^H",
                                                              [f"Street {m}", f"City{m}"]),
        "XTN": (f"^PRN^PH^^^^{digits}", [digits]), "XCN": (f"{m}^Fam{m}^Giv{m}", [m, f"Fam{m}"]),
        "XON": (f"Org {m}^^^^^H&1.2.3&ISO^XX^^^{m}", [m, f"Org {m}"]), "NDL": (f"{m}&Fam{m}&Giv{m}", [m, f"Fam{m}"]),
        "PL": (f"{m}^R{m}^B{m}^F{m}", [m, f"R{m}", f"B{m}"]), "CQ": ("731.25^mL", ["731.25", "mL"]),
        "DR": (f"{at}^{int(at[:8]) + 1}112233", [iso]), "TQ": (f"^^^{at}^^S", [iso]),
        "DLD": (m, [m]), "DLN": (f"{m}^H^20301231", [m]), "FC": (f"{m}^20240101", [m]),
        "NA": ("1^2^731.25", ["731.25"]),
        "NR": ("1.5^731.25", ["1.5", "731.25"]), "VR": ("1^2", ["1-2"]), "SN": (">^731.25", ["731.25"]),
        "ED": ("APP^Application^PDF^Base64^JVBERi0xLjQK", ["application/pdf"]),
        "RP": (f"http://h.example/{m}^H^Application^PDF", [f"http://h.example/{m}"]), "PT": ("P", ["P"]),
        "MSG": ("", []), "OG": (m, [m]),
    }
    return made[data_type]


# ---------------------------------------------------------------- conditions

_VALUED = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d))? (?:IS )?(NOT )?VALUED")
_EQUALS = re.compile(r'([A-Z][A-Z0-9]{2})[-.](\d+)(?:\.(\d))?\s*(?:EQUALS|IS|IN|=)\s*\(?"([^"]*)"')


def conditions(row: Row) -> dict[tuple[str, int], str]:
    """Fields that the row's condition wants filled, empty or with a value: (segment, field) → text."""
    found: dict[tuple[str, int], str] = {}
    for segment, field, component, no in _VALUED.findall(row.condition):
        if no:
            found[segment, int(field)] = ""
        elif (segment, int(field)) != (row.segment, row.field) and not component:
            found[segment, int(field)] = _OTHERS.get(f"{segment}-{field}", "20240101" if segment == "OBR" else "Q1")
    for segment, field, component, value in _EQUALS.findall(row.condition):
        if not component:
            found[segment, int(field)] = value
    return found


#: A value of a field that a condition wants filled.
_OTHERS = {"OBR-8": "20240102020000", "PV1-45": "20240105000000", "OBX-25": "MD1^Director",
           "MSH-22": "Org^^^^^^XX^^^O9"}


# ---------------------------------------------------------------- targets

Resources = dict[str, dict[str, Any]]


def resources_of(conversion: Conversion) -> Resources:
    """The resources of a conversion by reference."""
    return {f"{c.resource['resourceType']}/{c.resource['id']}": c.resource for c in conversion.changes}


def at_path(start: Any, path: str, resources: Resources) -> list[Any]:
    """Every element at a path of the guide: ``[n]`` stands for any element, ``x(Type.y)`` follows a reference."""
    nodes = [start]
    position = 0
    while position < len(path):
        if path[position] == "(":
            end = _closing(path, position)
            inner = path[position + 1:end]
            kind = re.match(r"[A-Za-z]+", inner)
            if kind and kind[0][0].isupper():
                rest = re.sub(r"^[A-Za-z|]+(\[\w*\])?\.?", "", inner)
                nodes = [found for node in nodes for followed in _followed(node, inner, resources)
                         for found in at_path(followed, rest, resources)]
            position = end + 1
            continue
        match = _STEP.match(path, position)
        assert match and match.end() > position, path
        if name := match[1]:
            nodes = [found for node in nodes for found in _child(node, name)]
        position = match.end()
    return nodes


def _closing(path: str, start: int) -> int:
    depth = 0
    for at in range(start, len(path)):
        depth += {"(": 1, ")": -1}.get(path[at], 0)
        if not depth:
            return at
    return len(path)


def _child(node: Any, name: str) -> list[Any]:
    if not isinstance(node, dict):
        return []
    found = node.get(name, [])
    beside = node.get(f"_{name}")
    many = [*found] if isinstance(found, list) else [found]
    return many + ([beside] if beside else [])


def _followed(node: Any, inner: str, resources: Resources) -> list[Any]:
    """The resource that a Reference means, if it is of the type; the Reference itself where it is logical."""
    kinds = re.match(r"[A-Za-z|]+", inner)
    if not isinstance(node, dict) or kinds is None:
        return []
    if "reference" not in node:
        return [node]
    kind = node["reference"].partition("/")[0]
    if kind not in kinds[0].split("|"):
        return []
    if node["reference"] in resources:
        return [resources[node["reference"]]]
    return [node] if "identifier" in node else []  # of another message, with its number beside


def leaves(node: Any, resources: Resources, depth: int = 2) -> Iterator[str]:
    """The texts beneath an element, and those of the resources that it refers to."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "reference" and depth and value in resources:
                yield from leaves(resources[value], resources, depth - 1)
            else:
                yield from leaves(value, resources, depth)
    elif isinstance(node, list):
        for one in node:
            yield from leaves(one, resources, depth)
    else:
        yield str(node).lower() if isinstance(node, bool) else str(node)


# ---------------------------------------------------------------- one row

#: OBX-5 of an SN by what the condition says of its separator: text, what must be found.
_STRUCTURED = (("NOT IN", ">^731.25", ["731.25"]), ('IN (":", "/")', "^1^:^128", ["1", "128"]),
               ('EQUALS "-"', "^10^-^20", ["10", "20"]), ('EQUALS "+"', "^2^+", ["2 +"]),
               ("all fail", "abc^5", ["abc 5"]), ('EQUALS "<>"', "<>^731.25", ["<> 731.25"]))
#: Rows whose source or condition needs a message of its own: fields beside, and what must be found (None: as usual).
_SPECIAL: dict[str, tuple[dict[tuple[str, int], str], list[str] | None]] = {}


def special(prefix: str, fields: dict[tuple[str, int], str], expected: list[str] | None = None) -> None:
    """Declare what the rows whose key begins so need."""
    _SPECIAL[prefix] = fields, expected


def kind_of(row: Row) -> tuple[str, int]:
    """The message that a row is tested in, and which of the segments of its name."""
    if row.map in _HOMES:
        return _HOMES[row.map]
    return ("ADT", 0) if row.segment in ("PID", "PV1") and takes("ADT") else ("ORU", 0)


@cache
def takes(kind: str) -> bool:
    """Whether messages of a kind are taken at all."""
    return not isinstance(converted(message(kind, {})), GatewayError)


def stimulus(row: Row) -> tuple[dict[tuple[str, int], str], list[str]]:
    """The fields that a row's message needs, and what must be found at its target."""
    fields = conditions(row)
    expected: list[str] = []
    kind = row.data_type
    if row.segment == "OBX":
        for place, text in _value_type(row).items():
            fields[place] = text
        kind = fields.get(("OBX", 2), "NM") if row.field == 5 else kind
    codes = code_rows().get(row.table.replace("/", "_"), code_rows().get(row.table.replace("/", ""), []))
    if row.field and (row.segment, row.field) not in fields:
        text, expected = sample(kind if kind != "varies" else "NM", row.segment, row.field, row.type_map)
        if codes and (kind in ("ID", "IS") or row.target_type in ("code", "boolean", "Coding") or row.path == "status"):
            text, expected = codes[0][0], [codes[0][1]]
        fields[row.segment, row.field] = text
    elif row.segment == "OBX" and row.field == 5 and fields.get(("OBX", 2)) == "SN":
        expected = next(found for said, _, found in _STRUCTURED if said in row.condition)
    for prefix, (beside, found) in _SPECIAL.items():
        if row.key.startswith(prefix):
            fields.update(beside)
            expected = found if found is not None else expected
    return fields, expected


def _value_type(row: Row) -> dict[tuple[str, int], str]:
    """OBX-2 and OBX-5 as a condition on them wants them."""
    match = re.search(r'OBX-2\s*(?:EQUALS|IN|=)\s*\(?"(\w+)"', row.condition)
    kind = match[1] if match else "SN" if "OBX-2 = SN" in row.condition else ""
    if not kind:
        return {}
    found = {("OBX", 2): kind if kind != "NA" or row.field == 5 else "NM"}
    if kind == "SN":
        found["OBX", 5] = next(text for said, text, _ in _STRUCTURED if said in row.condition)
    elif row.field != 5:
        found["OBX", 5] = sample(found["OBX", 2], "OBX", 5)[0]
    return found


def verdict(row: Row) -> str:
    """"" where the target is filled as the row tells, else what is missing."""
    kind, which = kind_of(row)
    fields, expected = stimulus(row)
    raw = message(kind, {(segment, which if segment == row.segment else 0, field): text
                         for (segment, field), text in fields.items()})
    conversion = converted(raw)
    if isinstance(conversion, GatewayError):
        return f"refused: {conversion}"
    resources = resources_of(conversion)
    wanted = row.target.partition("-")[0]
    targets = [one for one in resources.values() if one["resourceType"] == wanted]
    if not targets:
        return f"no {wanted} is made"
    constant = re.fullmatch(r'"([^"]*)"?', row.assigned)
    missing = f"{row.path} is empty"
    for target in targets:
        if constant:
            if _holds_constant(target, row.path, _canonical(constant[1]), expected, resources):
                return ""
            continue
        nodes = at_path(target, row.path, resources)
        texts = {text for node in nodes for text in leaves(node, resources)}
        if texts and all(any(one in text for text in texts) for one in expected):
            return ""
        if texts:
            missing = f"{row.path} is filled, but lacks {expected}"
    return missing if not constant else f"{row.path} does not hold {constant[1]} beside {expected}"


def _canonical(text: str) -> str:
    return re.sub("^https:", "http:", text.strip()).rstrip(".")


def _holds_constant(target: Any, path: str, constant: str, expected: list[str], resources: Resources) -> bool:
    """Whether a path holds a text, in an element that holds what was sent too."""
    steps = _steps(path)
    for split in range(len(steps), -1, -1):
        for element in at_path(target, ".".join(steps[:split]), resources):
            texts = set(leaves(element, resources))
            if not all(any(one in text for text in texts) for one in expected):
                continue
            nodes = at_path(element, ".".join(steps[split:]), resources)
            if any(_canonical(text) == constant for node in nodes for text in leaves(node, resources, 0)):
                return True
    return False


def _steps(path: str) -> list[str]:
    """A path at its dots, those within parentheses left alone."""
    steps, depth = [""], 0
    for character in path:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "." and not depth:
            steps.append("")
        else:
            steps[-1] += character
    return steps


_NO_PLACER, _NO_FILLER = {("OBR", 2): ""}, {("OBR", 3): ""}
special("ORC[DiagnosticReport] ORC-2", _NO_PLACER)
special("ORC[DiagnosticReport] ORC-3", _NO_FILLER)
special("ORC[DiagnosticReport] ORC-2 basedOn", _NO_PLACER, ["ZORC2"])
special("ORC[ServiceRequest] ORC-1 status", {("ORC", 1): "DC"}, ["revoked"])
special("ORC[ServiceRequest] ORC-1 intent", {("ORC", 1): "NW"}, [])
special("ORC[ServiceRequest] ORC-1 extension", {("ORC", 1): "NW"}, [])
special("ORC[ServiceRequest] ORC-1 extension[1].extension[1].valueCodeableConcept.coding.code", {("ORC", 1): "NW"},
        ["NW"])
special("ORC[ServiceRequest] ORC-4 identifier[3]", {("ORC", 38): ""}, ["FZORC4"])
special("ORC[ServiceRequest] ORC-12", {("ORC", 17): "D1^Department^L"})
special("ORC[ServiceRequest] ORC-21", {("ORC", 12): "DR1^Doctor"})
special("ORC[ServiceRequest] ORC-22", {("ORC", 12): "DR1^Doctor", ("ORC", 21): "Org^^^^^^XX^^^O9"})
special("ORC[ServiceRequest] ORC-23", {("ORC", 12): "DR1^Doctor", ("ORC", 21): "Org^^^^^^XX^^^O9"})
special("ORC[ServiceRequest] ORC-24", {("ORC", 12): "DR1^Doctor", ("ORC", 21): "Org^^^^^^XX^^^O9"})
special("ORC[Provenance] ORC-24", {("ORC", 12): "DR1^Doctor"})
special("ORC[Provenance] ORC-22", {("ORC", 21): "Org^^^^^^XX^^^O9"})
special("ORC[Provenance] ORC-23", {("ORC", 21): "Org^^^^^^XX^^^O9"})
special("OBR[DiagnosticReport] OBR-8", {("OBR", 7): "20190101000000"})
special("OBR[ServiceRequest] OBR-11 intent #3", {("OBR", 11): "S"}, [])
for _at in (2, 7, 8, 9, 13, 39):
    special(f"OBR[Specimen] OBR-{_at}", {("OBR", 15): "SER&Serum&L"})
special("OBR[Specimen] OBR-7 collection.collectedPeriod.start",
        {("OBR", 15): "SER&Serum&L", ("OBR", 8): "20281231000000"})
special("OBR[Specimen] OBR-8", {("OBR", 15): "SER&Serum&L", ("OBR", 7): "20190101000000"})
for _map in ("OBX[Observation]", "OBX[Observation-Component]"):
    special(f"{_map} OBX-11 dataAbsentReason", {("OBX", 11): "N", ("OBX", 5): ""}, [])
    special(f"{_map} OBX-24", {("OBX", 23): "Org^^^^^^XX^^^O9"})
special("PID[Patient] PID-7 birthDate.extension[1].valueDateTime", {}, ["T11:22:33"])
special("PID[Patient] PID-7 birthDate.extension[1].url", {}, ["T11:22:33"])
special("PID[Patient] PID-13 telecom[1].use", {("PID", 13): "^^PH^^^^5551313"}, ["5551313"])
special("PID[Patient] PID-14 telecom[2].use", {("PID", 14): "^^PH^^^^5551414"}, ["5551414"])
special("PID[Patient] PID-25", {("PID", 25): "2"}, ["2"])
special("PID[Patient] PID-30", {("PID", 30): "Y"}, ["true"])
special("PID[Patient] PID-24", {("PID", 24): "Y"}, ["true"])
special("PID[Patient] PID-12 address[2].district", {("PID", 11): "S1^^C1^^^CHN^H^^Other"})
special("PID[Patient] PID-12 address[2].district #2", {("PID", 11): "S1^^C1^^^CHN^H~S2^^C2^^^CHN^O"})
special("PID[Patient] PID-12 address[1].district", {("PID", 11): "S1^^C1^^^CHN^H"})
special("PID[Patient] PID-12 address[1].district #2", {("PID", 11): ""})
special("PV1[Encounter] PV1-3 location[1].status #2", {("PV1", 2): "P"})
special("PV1[Encounter] PV1-19 identifier[1].type.coding.code", {("PV1", 19): "ZPV119"})
special("PV1[Encounter] PV1-19 identifier[1].type.coding.system", {("PV1", 19): "ZPV119"})
special("PV1[Encounter] PV1-45 status", {}, [])
special("PV1[Encounter] PV1-45 period.end", {("PV1", 44): "20180101"})
special("SPM[Specimen] SPM-17 collection.collectedDateTime", {("SPM", 17): "20190304112233"}, ["2019-03-04"])
special("SPM[Specimen] SPM-32 identifier[3].type.coding.code", {}, ["SHIP"])
special("OBX[Observation] OBX-19 extension[2].url", {}, ["analysis-date-time"])
special("OBX[Observation-Component] OBX-19 extension[1].url", {}, ["analysis-date-time"])
for _map in ("OBX[Observation]", "OBX[Observation-Component]"):
    special(f"{_map} OBX-33 specimen(Specimen.identifier[1])", {("OBX", 33): "P33&N33"}, ["P33"])
special("SPM[Specimen] SPM-3 parent[1](Specimen.identifier[1])", {("SPM", 3): "P3&N3"}, ["P3"])
for _map in ("Observation", "ServiceRequest", "DocumentReference", "Appointment-Comment"):
    for _at in (4, 5, 6, 9):
        special(f"NTE[{_map}] NTE-{_at}", {("NTE", 3): "note text"})
special("MSH[Provenance-Source] MSH-4", {}, ["ZMSH4"])
special("MSH[Provenance-Operator] MSH-4", {}, ["ZMSH4"])
special("MSH[Provenance-Source] MSH-9", {("MSH", 9): "ORU^R01^ORU_R01"}, ["ORU^R01^ORU_R01"])
special("MSH[Encounter] MSH-9", {("MSH", 9): "ADT^A03^ADT_A03"}, ["finished"])
special("PV1[Encounter] PV1-40", {("PV1", 3): "W1^R2^B3"})
special("PID[Patient] PID-36", {("PID", 35): "SP1^Species^L"})
#: What the guide wants of the conversion itself: no conversion of ours says when or by whom it was done.
_OF_THE_CONVERSION = ["(of the conversion itself)"]
special("MSH[Provenance-Transformation] MSH recorded", {}, _OF_THE_CONVERSION)
special("MSH[Provenance-Transformation] MSH agent[1].who", {}, _OF_THE_CONVERSION)
special("PID[Provenance-Patient] PID recorded", {}, _OF_THE_CONVERSION)
