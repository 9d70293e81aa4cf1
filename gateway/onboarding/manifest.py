"""The manifest that samples suggest, as text for a person to read on: what is sure stands there, what is to be decided
stands beside it as a comment with its count. Pure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.identity import NATIONAL_ID_SYSTEM
from gateway.onboarding.habits import OBVIOUS, ZONES, Habits, is_filler
from gateway.onboarding.images import ImageHabits

_SOME = 0.5  # more than half: a habit, not a slip
_WHAT = {"OBX-8": "flags outside table 0078; they stay the hospital's own until a row here says what they mean",
         "OBX-11": "result states outside table 0085: such results are refused until a row here says what they mean",
         "OBR-25": "report states outside table 0123: such reports are refused until a row here says what they mean",
         "PID-8": "sexes outside table 0001; nothing is stored of them until a row here says what they mean",
         "PV1-2": "patient classes outside table 0004",
         "ORC-5": "order states outside table 0038", "OBR-5": "priorities outside table 0485"}


@dataclass(frozen=True, slots=True)
class Hospital:
    """What a person says of the hospital, because no message does."""

    slug: str
    name: str
    timezone: str = "Asia/Shanghai"
    facilities: tuple[str, ...] = field(default=())


def manifest_text(hospital: Hospital, habits: Habits, images: ImageHabits | None = None) -> str:
    """``manifest.toml``."""
    lines = [*_institution(hospital, habits), "", *_hl7v2(hospital, habits, images), *_identifiers(hospital, habits),
             *_tables(habits), "", *_dicom(images), "", "[exempt]",
             'has-examples = "just begun: put messages with invented patients into examples/, then remove this line"']
    return "\n".join(lines) + "\n"


def _institution(hospital: Hospital, habits: Habits) -> Iterator[str]:
    yield f"# Begun from {habits.messages} sample messages. What is sure stands here; a line behind '# ' is a proposal:"
    yield "# take the '# ' away where you agree. Numbers are counts among the samples."
    yield "[institution]"
    yield _line("id", hospital.slug, "slug; also the Organization id; never changes")
    yield _line("name", hospital.name, "as people read it")
    yield _line("code_system", f"urn:huren:{hospital.slug}:item", "the hospital's own test and exam codes")
    yield _line("quality", [], 'unified items whose external quality assessment is valid, or "all"')
    yield '# region = "330100"                     # code of the region that it lies in'
    yield "# level = 3                             # 3: tertiary"


def _hl7v2(hospital: Hospital, habits: Habits, images: ImageHabits | None) -> Iterator[str]:
    yield "[hl7v2]"
    told = f"MSH-4: {_counted(habits.facilities)}" if habits.facilities else "MSH-4 values that select this folder"
    yield _line("sending_facility", list(hospital.facilities), told)
    applications: Counter[str] = Counter()
    for (_, application), count in habits.senders.items():
        applications[application] += count
    if applications:
        yield (f"# sending_application = {_toml(sorted(applications))}   # MSH-3: {_counted(applications)}; only where "
               "two folders share a facility")
    yield _line("addresses", [], 'from where it may send, such as "10.1.0.0/16"; empty: from anywhere')
    if habits.charset:
        yield _line("charset", habits.charset, habits.charset_reason)
    else:
        said = habits.charset_reason or (f"not needed: MSH-18 {_counted(habits.declared)}; "
                                         f"bytes {_counted(habits.codecs)}")
        yield f'# charset = "gb18030"                   # {said}'
    yield _line("timezone", _zone(hospital, habits),
                f"offsets sent: {_counted(habits.offsets)}" if habits.offsets else "of times without an offset")
    yield from _values(habits)
    yield from _numbers(habits)
    if images is not None and (found := _accession(habits, images)):
        said = f"holds {found[1]} accession numbers of the sample images"
        yield _line("accession_field", f"OBR-{found[0]}", said)
    if habits.sequence_numbers.rate > _SOME:
        said = f"{habits.sequence_numbers.count} messages number themselves in MSH-13; true: gaps are refused"
        yield _proposed("sequence_numbers", True, said, False)


def _zone(hospital: Hospital, habits: Habits) -> str:
    """The zone of the only offset that is sent; the gateway's own where none or several are."""
    sent = [offset for offset in habits.offsets if offset != "none"]
    return ZONES.get(sent[0], hospital.timezone) if len(sent) == 1 and sent[0] != "Z" else hospital.timezone


def _values(habits: Habits) -> Iterator[str]:
    if habits.st_numbers.count:
        numbers = habits.st_numbers
        yield _line("st_numbers", True, f"{numbers.count} of {numbers.of} values typed ST with a unit are numbers")
    if habits.second_unit.count:
        said = f"{habits.second_unit.count} of {habits.second_unit.of} units stand in OBX-6.2 behind a local number"
        yield _proposed("unit_component", 2, said, habits.second_unit.rate > _SOME)
    if habits.shared_numbers.count:
        said = f"{habits.shared_numbers.count} of {habits.shared_numbers.of} placer numbers stand for several services"
        yield _proposed("orders_share_number", True, said, habits.shared_numbers.rate > 0.05)


def _numbers(habits: Habits) -> Iterator[str]:
    """What a text may mean: for a person to say."""
    if habits.titres:
        yield _proposed("st_titres", True, f"{habits.titres} values like 1:128; true: they are Ratios", False)
    if habits.st_ranges:
        said = f"{habits.st_ranges} values like 10-20 with a unit; true: they are Ranges"
        yield _proposed("st_ranges", True, said, False)
    if habits.commas:
        thousands = set(habits.commas) == {3}
        said = f"{sum(habits.commas.values())} values like " + ("1,000: or is it one?" if thousands else "3,5")
        yield _proposed("number_comma", "thousands" if thousands else "decimal", said, False)
    if habits.double_ranges:
        said = f"{habits.double_ranges} reference ranges have two repetitions; true: the second is the critical one"
        yield _proposed("critical_limits", True, said, False)
    if habits.parents:
        said = f"{sum(habits.parents.values())} orders name these results as their parents in OBR-26; of organisms?"
        yield _proposed("organism_codes", sorted(habits.parents), said, False)


def _accession(habits: Habits, images: ImageHabits) -> tuple[int, int] | None:
    """The field of OBR that holds most of the images' accession numbers, when it is not OBR-18, and how many."""
    found = {at: len(images.accessions & values) for at, values in habits.order_numbers.items()}
    best = max(found, key=lambda at: (found[at], at == 18), default=0)
    return (best, found[best]) if best and found[best] and best != 18 else None


def _identifiers(hospital: Hospital, habits: Habits) -> Iterator[str]:
    """The number series of PID-3 and PID-19. The main one is the hospital's own and needs no line; nor do numbers whose
    type says that they are the identity card's: a line would keep them from linking a person's records."""
    if not habits.authorities and not habits.identity_numbers.of:
        return
    own = habits.own_numbers.most_common(1)[0][0] if habits.own_numbers else None
    yield ""
    yield "# Numbers in PID-3 by authority and type:"
    proposals: dict[str, str] = {}
    for series, count in habits.authorities.most_common(12):
        authority, kind = series
        said = f"#   {_plain(authority) or '(no authority)'} / {_plain(kind) or '(no type)'}: {count}"
        if habits.known_cards[series] > _SOME * count:
            yield f"{said}, identity card numbers: read as such without a line"
        elif series == own:
            yield f"{said}, the patient's main number: the hospital's own, without a line"
        elif habits.cards[series] > _SOME * count:
            yield f"{said}, {habits.cards[series]} of them valid identity card numbers under another type"
            proposals.setdefault(authority or kind, NATIONAL_ID_SYSTEM)
        else:
            yield f"{said}: a series of its own? Equal numbers of two series would be one patient"
            proposals.setdefault(authority or kind, f"urn:huren:{hospital.slug}:patient:{_slug(authority or kind)}")
    valid = habits.identity_numbers
    if valid.of:
        yield (f"# PID-19: {valid.count} of {valid.of} are valid identity card numbers"
               + ("; those are read as such without a line" if valid.count else ""))
        if valid.rate <= _SOME:
            proposals["PID-19"] = f"urn:huren:{hospital.slug}:social"
    shared = {authority or kind for authority, kind in [*habits.known_cards.elements(), *([own] if own else [])]}
    proposals = {name: system for name, system in proposals.items() if name and name not in shared}
    if proposals:
        yield "# [hl7v2.identifier_systems]"
        yield from (f"# {_toml(name)} = {_toml(system)}" for name, system in sorted(proposals.items()))


def _tables(habits: Habits) -> Iterator[str]:
    for place, counter in habits.strange.items():
        yield ""
        yield f'# [hl7v2.tables."{place}"]   # {_WHAT.get(place, "values outside the standard table")}'
        for value, count in counter.most_common(30):
            if value == "(others)":
                yield f"#   … and others, {count} times: one patient's each, so they are not told here"
                continue
            meant = OBVIOUS.get(place, {}).get(value)
            said = "obvious; see that you agree" if meant is not None else "ask the hospital, then replace ?"
            if not value:
                said = "absent, stored as unknown; where it always means one thing, replace ?"
            yield f"# {_toml(value)} = {_toml('?' if meant is None else meant):<24} # {count} times: {said}"
    for place, counter in sorted(habits.fillers.items()):
        yield ""
        yield f'# [hl7v2.tables."{place}"]   # fillers or no possible times: a row here says that they mean nothing'
        for value, count in counter.most_common(10):
            if is_filler(value):
                yield f'# {_toml(value)} = ""   # {count} times'
            else:
                yield f"#   {count} times something of the form {value}: ask the hospital"


def obvious_tables(habits: Habits) -> dict[str, dict[str, str]]:
    """The tables with every proposal that needs no question to the hospital."""
    made = {place: {value: OBVIOUS[place][value] for value in counter if value in OBVIOUS.get(place, ())}
            for place, counter in habits.strange.items()}
    for place, counter in habits.fillers.items():
        made.setdefault(place, {}).update({value: "" for value in counter if is_filler(value)})
    return made


def _dicom(images: ImageHabits | None) -> Iterator[str]:
    yield "[dicom]"
    if images is not None and images.titles:
        yield f"# Titles that wrote the files: {_counted(images.titles)}; ask the hospital which of its systems send."
    yield "calling_aets = []                       # AE titles of its systems; no file tells who will send it"
    if images is None or not images.objects:
        return
    if images.undeclared:
        yield (f'# charset = "GB18030"                   # {images.undeclared} of {images.objects} objects do not say '
               "theirs, (0008,0005), and need one")
    if images.descriptions and not images.codes:
        yield f"# study_description_is_code = true        # {sum(images.descriptions.values())} studies have no code"


def _line(key: str, value: object, comment: str = "") -> str:
    text = f"{key} = {_toml(value)}"
    return f"{text:<40}# {comment}" if comment else text


def _proposed(key: str, value: object, comment: str, sure: bool) -> str:
    return ("" if sure else "# ") + _line(key, value, comment)


def _toml(value: object) -> str:
    """A TOML value: JSON's strings, lists and booleans are TOML's too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{_plain(value) or '(none)'} {count}" for value, count in counter.most_common(8))


def _plain(text: str) -> str:
    """A value of a message within a comment: one line."""
    return "".join(c for c in text if c.isprintable())


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-") or "other"
