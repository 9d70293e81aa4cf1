"""The hospital's own codes: gathered from samples, proposed to a person, and taken over into ``codes.csv``. Pure.

``codes.suggested.csv`` is the list that a person works through in a spreadsheet. In its first column stands the answer:
``1``, ``2`` or ``3`` (or ``x`` for the first) takes a candidate, an item's code takes that item, ``-`` says that the
code is no item by nature; an empty cell decides nothing.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO

from gateway.errors import Category, GatewayError
from gateway.hl7v2 import Message, Segment
from gateway.hl7v2.datatypes import unit_parts
from gateway.onboarding.profile import local_code
from gateway.onboarding.suggest import Candidate, MenuRow
from gateway.source import Source
from gateway.terminology import LOINC, CodeRow, catalogue, system_uri
from gateway.terminology.codemap import NO_ITEM

_MOST = 3
_HEAD = ("approved", "local", "display", "unit", "specimen", "kind", "count", "note")
COLUMNS = (*_HEAD, *(f"{name}{n}" for n in range(1, _MOST + 1) for name in ("item", "name", "score")), "why")
_NEIGHBOURS = 40


@dataclass(slots=True)
class LocalCode:
    """One of the hospital's codes and what came with it. ``kinds``: "test" (OBX-3), "order" (OBR-4), "exam" (DICOM)."""

    local: str
    kinds: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)
    specimens: Counter[str] = field(default_factory=Counter)
    neighbours: Counter[str] = field(default_factory=Counter)

    @property
    def kind(self) -> str:
        """What it is in the first place; a test that is ordered by its own code is a test."""
        return next(kind for kind in ("test", "exam", "order") if self.kinds[kind])

    @property
    def count(self) -> int:
        """How often it came, as what it is."""
        return self.kinds[self.kind]

    @property
    def row(self) -> MenuRow:
        """As `gateway.onboarding.suggest` wants it: the most frequent of everything."""
        return MenuRow(self.local, _first(self.names), _first(self.units), _first(self.specimens),
                       tuple(name for name, _ in self.neighbours.most_common(_NEIGHBOURS)))

    @property
    def note(self) -> str:
        """What a person should know before deciding."""
        said = []
        for what, counter in (("names", self.names), ("units", self.units), ("specimens", self.specimens)):
            if len(counter) > 1:
                said.append(f"several {what}: {', '.join(text for text, _ in counter.most_common(4))}")
        return "; ".join(said)


def gather(messages: Iterable[Message], source: Source) -> list[LocalCode]:
    """Every code of OBX-3 and OBR-4, tests before orders, the most frequent first.

    Left out is a LOINC code that is understood without a row.
    """
    found: dict[str, LocalCode] = {}
    for message in messages:
        group = _Group()
        for segment in message.segments:
            if segment.name == "OBR":
                group.close()
                group = _Group(_text(segment, 15), _add(found, segment, 4, "order"))
            elif segment.name == "SPM":
                group.specimen = _text(segment, 4) or group.specimen
            elif segment.name == "OBX" and (code := _add(found, segment, 3, "test")):
                if unit := unit_parts(segment.first(6), source).get("unit"):
                    code.units[unit] += 1
                group.tests.append(code)
        group.close()
    return sorted(found.values(), key=lambda c: (c.kind != "test", -c.count, c.local))


class _Group:
    """An order, its specimen and its tests."""

    def __init__(self, specimen: str = "", order: LocalCode | None = None) -> None:
        self.specimen = specimen
        self.order = order
        self.tests: list[LocalCode] = []

    def close(self) -> None:
        """Tell each of the order's codes of its specimen and of the others' names."""
        names = {code.local: _first(code.names) for code in self.tests}
        for code in [*self.tests, *([self.order] if self.order else [])]:
            if self.specimen:
                code.specimens[self.specimen] += 1
            code.neighbours.update({name for local, name in names.items() if name and local != code.local})


def _add(found: dict[str, LocalCode], segment: Segment, at: int, kind: str) -> LocalCode | None:
    local, name = local_code(segment, at)
    if not local or _understood(local, segment, at):
        return None
    code = found.setdefault(local, LocalCode(local))
    code.kinds[kind] += 1
    if name:
        code.names[name] += 1
    return code


def _understood(local: str, segment: Segment, at: int) -> bool:
    return system_uri(segment.get(at, 3)) == LOINC and bool(catalogue().of_loinc(local))


def _text(segment: Segment, at: int) -> str:
    """What a coded field says in words: of SPM-4 the second component, of OBR-15.1 the second subcomponent, else what
    is there."""
    part = segment.first(at)
    within = part.get(1, 2)
    return (within or part.get(2) if segment.name == "OBR" else part.get(2)) or part.get(1)


def _first(counter: Counter[str]) -> str:
    """The most frequent; the earlier of equals."""
    return counter.most_common(1)[0][0] if counter else ""


# -------------------------------------------------------------------------------------------------- as files

def suggested_csv(codes: Sequence[LocalCode], found: Sequence[Sequence[Candidate]]) -> str:
    """``codes.suggested.csv``, with a byte order mark so that a spreadsheet reads it as UTF-8."""
    known = catalogue()
    out = StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for code, candidates in zip(codes, found, strict=True):
        row = code.row
        cells = [cell for c in candidates[:_MOST] for cell in (c.item, known.display(c.item) or "", f"{c.score:.3f}")]
        why = "; ".join(candidates[0].reasons) if candidates else ""
        writer.writerow(["", _cell(row.local), _cell(row.display), _cell(row.unit), _cell(row.specimen), code.kind,
                         code.count, _cell(code.note), *cells, *[""] * (3 * _MOST - len(cells)), _cell(why)])
    return "\ufeff" + out.getvalue()


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula, nor ``0012`` for the number 12: the quote is taken away again."""
    return f"'{text}" if text.startswith(tuple("=+-@'")) or _rewritten(text) else text


def _rewritten(text: str) -> bool:
    """Whether a spreadsheet would make another number or a date of it: 0012, 1E5, 3-5, more than eleven digits."""
    if text.isdigit():
        return len(text) > 11 or text.startswith("0")
    return text[:1].isdigit() and all(c in "0123456789eE+-/.:" for c in text)


def codes_csv(rows: Iterable[CodeRow]) -> str:
    """``codes.csv``."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("local", "item", "display", "unit"))
    writer.writerows((row.local, row.item, row.display, row.unit) for row in rows)
    return out.getvalue()


def with_new(rows: Sequence[CodeRow], codes: Iterable[LocalCode]) -> list[CodeRow]:
    """The rows and, behind them, the codes that have none yet: known, not mapped."""
    there = {row.local for row in rows}
    return [*rows, *(CodeRow(0, c.local, "", c.row.display, c.row.unit) for c in codes if c.local not in there)]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A row of ``codes.suggested.csv`` as it came back from a person."""

    line: int
    approved: str
    row: MenuRow
    candidates: tuple[tuple[str, float], ...]


def read_suggested(data: bytes, where: str = "codes.suggested.csv") -> list[Proposal]:
    """The list as a spreadsheet saved it: UTF-8 or GB 18030; commas, semicolons or tabs; INVALID names the line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = data.decode("gb18030")  # "CSV" of a spreadsheet on a Chinese Windows
        except UnicodeDecodeError:
            raise GatewayError(Category.INVALID, "save it as 'CSV UTF-8'", where) from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    if missing := [name for name in ("approved", "local", "item1") if name not in columns]:
        raise GatewayError(Category.INVALID, f"the first line must name the columns {', '.join(COLUMNS)}; "
                           f"{', '.join(missing)} missing", f"{where}:1")
    reader.fieldnames = columns
    proposals = []
    for cells in reader:
        given = {name: (value or "").strip().removeprefix("'") for name, value in cells.items()
                 if name is not None and (value is None or isinstance(value, str))}
        if not given["local"]:
            continue
        row = MenuRow(given["local"], given.get("display", ""), given.get("unit", ""), given.get("specimen", ""))
        candidates = tuple((item, _score(given.get(f"score{n}", ""))) for n in range(1, _MOST + 1)
                           if (item := given.get(f"item{n}", "")))
        proposals.append(Proposal(reader.line_num, given["approved"], row, candidates))
    return proposals


def _score(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Decided:
    """What merging a list into ``codes.csv`` gives. ``taken``: local code → item, ``odd``: (line, sentence)."""

    rows: list[CodeRow]
    taken: dict[str, str] = field(default_factory=dict)
    odd: list[tuple[int, str]] = field(default_factory=list)
    undecided: int = 0


def decide(rows: Sequence[CodeRow], proposals: Sequence[Proposal], accept: float | None = None) -> Decided:
    """``codes.csv`` with what a person approved. A row that has an item already changes only by an approval.

    ``accept``: also takes the first candidate of each undecided row whose score is at least so high and whose second
    candidate's is not.
    """
    items: dict[str, str] = {}
    decided = Decided([])
    known = {row.local: row for row in rows}
    for proposal in proposals:
        local = _local(proposal, known)
        if local is None:
            if proposal.approved:
                decided.odd.append((proposal.line, f"'{proposal.row.local}' is not among the local codes of codes.csv; "
                                    "did the spreadsheet rewrite it?"))
            continue
        item = _answer(proposal, decided)
        if item is None and accept is not None and not known[local].item:
            item = _sure(proposal, accept)
        if item is None:
            decided.undecided += not known[local].item
        elif item != known[local].item:
            items[local] = item
    decided.taken = items
    decided.rows = [row._replace(item=items.get(row.local, row.item)) for row in rows]
    return decided


def _answer(proposal: Proposal, decided: Decided) -> str | None:
    """The item that the first column names; None where it decides nothing."""
    said = proposal.approved
    if not said:
        return None
    place = {"x": 1, "X": 1, "√": 1, "✓": 1, "v": 1, "1": 1, "2": 2, "3": 3, "1.0": 1, "2.0": 2, "3.0": 3}.get(said)
    if place is not None:
        if place > len(proposal.candidates):
            decided.odd.append((proposal.line, f"there is no candidate {place}; write the item's code"))
            return None
        return proposal.candidates[place - 1][0]
    if said in ("-", "－", "—", "–"):
        return NO_ITEM
    known = catalogue()
    if said not in known.items and said not in known.panels and not known.may_be_later(said):
        decided.odd.append((proposal.line, f"'{said}' is neither 1, 2, 3, x nor - nor an item or panel of the "
                                           "catalogue"))
        return None
    return said


def _sure(proposal: Proposal, accept: float) -> str | None:
    if not proposal.candidates or proposal.candidates[0][1] < accept:
        return None
    if len(proposal.candidates) > 1 and proposal.candidates[1][1] >= accept:
        return None
    return proposal.candidates[0][0]


def _local(proposal: Proposal, known: Mapping[str, CodeRow]) -> str | None:
    """The local code of a row, also where a spreadsheet dropped its leading zeros and its name is the same."""
    sent = proposal.row.local
    if sent in known:
        return sent
    near = [local for local, row in known.items() if local.lstrip("0") == sent.lstrip("0")
            and row.display == proposal.row.display]
    return near[0] if len(near) == 1 else None
