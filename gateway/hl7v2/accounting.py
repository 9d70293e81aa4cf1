"""What became of each value of a message: every segment, field, repetition, component and subcomponent has one fate.

Run when somebody asks (``huren inbox show``), never on the path of a message. Two witnesses: a conversion of a copy
that writes down what is asked of it (`gateway.hl7v2.tracing`), and conversions in which values that were asked for are
taken out or changed (`gateway.hl7v2.trying`), whose results are compared (`gateway.hl7v2.differing`). So it needs no
list of what the converters do, and it is exact for a hospital's hooks too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.errors import Category, GatewayError
from gateway.hl7v2.differing import deleted, differing, labels, leaves_at
from gateway.hl7v2.kept import read_elsewhere, reason_for
from gateway.hl7v2.message import Message
from gateway.hl7v2.tracing import Reads, edited, traced
from gateway.hl7v2.trying import Edit, Trial
from gateway.source import Conversion

#: Above this many values, whole fields are taken out instead of values: their values then share a fate. Above as many
#: fields that a conversion looks at, nothing is taken out, and only what is read is told.
MOST_LEAVES = 6000
_NULL = '""'  # deletes what is stored (v2.5.1 2.5.3)
#: What may become of a value.
KINDS = ("used", "read", "kept", "reported", "hook", "refused")
_REFUSED = "the message is refused: it stays as it came, and nothing of it is stored elsewhere"
_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?(?:-(\d+))?(?:[.(\[].*)?\Z")
_NUMBERED = re.compile(r"number (\d+)\)")
_TIME = re.compile(r"\d{4}(\d{2}){2,5}")
#: A number by itself, not a part of a code, a UID or base64.
_NUMBER = re.compile(r"(?<![A-Za-z0-9.+/=])[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9.+/=])")
_SIGNS = "<>=≤≥＜＞≦≧~≈±+-"

Before = Callable[[Message], Message | None]
Convert = Callable[[Message], Conversion]
After = Callable[[Conversion, Message], Conversion]


class Leaf(NamedTuple):
    """A value that is parted no further, and its place; ``at`` is the position of its segment in the message."""

    at: int
    segment: str
    sequence: int
    field: int
    repetition: int
    component: int
    subcomponent: int
    text: str  # as sent, escapes and all
    place: str  # OBX[3]-5[2].1.2: repetition, component and subcomponent only where there are several


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one value.

    ``used``: ``paths`` depend on it. ``reported``: a remark or an unmapped code names it (``paths`` may be there too).
    ``read``: looked at without effect on the resources, such as a duplicate or what the answer repeats. ``hook``: read
    by the hospital's hook alone. ``kept``: in the stored original and nowhere else. ``refused``: the message is refused
    because of it.
    """

    leaf: Leaf
    kind: str
    paths: tuple[str, ...] = ()
    required: bool = False  # without it the message would be refused
    reason: str = ""


@dataclass(slots=True)
class Account:
    """The fates of a message's values in the order in which they were sent."""

    message: Message
    fates: list[Fate] = field(default_factory=list)
    refusal: GatewayError | None = None
    missing: str = ""  # the place that a refusal names and where nothing was sent
    references: dict[str, str] = field(default_factory=dict)  # Observation[3] → Observation/<id>
    conversion: Conversion | None = None
    exact: bool = True  # False: so long a message that only what is read is told

    def counts(self) -> dict[str, int]:
        """How many values of each kind."""
        counted = Counter(fate.kind for fate in self.fates)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}


def account(message: Message, convert: Convert, before: Before | None = None, after: After | None = None) -> Account:
    """What ``convert`` makes of each value of a message, with the hospital's hooks before and after it.

    ``message`` is as parsed, no hook applied. ``convert`` is called up to three times for each value that it reads. A
    message that is refused has no resources: its account names the values at fault.
    """
    leaves = leaves_of(message)
    made = Account(message)
    runner = _Runner(message, convert, before, after)
    try:
        made.conversion = runner.base()
    except GatewayError as refusal:
        made.refusal = refusal
        made.fates, made.missing = _blamed(leaves, refusal, runner)
        return made
    except Exception as fault:  # ours, or of the hospital's hook: which value brings it about is worth knowing
        made.refusal = GatewayError(Category.FAULT, f"an error of the gateway or of the hospital's hook: "
                                    f"{type(fault).__name__}")
        made.fates = _faulty(leaves, made.refusal, runner)
        return made
    made.references = {name: f"{change.resource['resourceType']}/{change.resource['id']}"
                       for name, change in zip(labels(made.conversion.changes), made.conversion.changes, strict=True)}
    made.exact = len(runner.reads.seen & {(leaf.at, leaf.field) for leaf in leaves}) <= MOST_LEAVES
    found = _influences(leaves, runner, made.conversion) if made.exact else [([], False)] * len(leaves)
    used = [leaf for leaf, (paths, _) in zip(leaves, found, strict=True) if paths]
    at_work: set[Any] = {leaf.at for leaf in used} | {(leaf.at, leaf.field) for leaf in used}
    made.fates = [_fate(leaf, paths, required, at_work if made.exact else None, runner.reads, made.conversion)
                  for leaf, (paths, required) in zip(leaves, found, strict=True)]
    return made


def _influences(leaves: list[Leaf], runner: _Runner, base: Conversion) -> list[tuple[list[str], bool]]:
    """For each value the paths that depend on it, and whether the message needs it; many share their field's."""
    whole = len(leaves) > MOST_LEAVES
    found: dict[Any, tuple[list[str], bool]] = {}
    tried: dict[Any, Leaf] = {}
    for leaf in leaves:
        if leaf.text == _NULL:
            found[leaf] = runner.deletion(leaf, base)
        elif leaf.at == 0 and leaf.field < 3:
            found[leaf] = [], True
        elif (leaf.at, leaf.field) not in runner.reads.seen:
            found[leaf] = [], False
        else:
            tried.setdefault((leaf.at, leaf.field) if whole else leaf, leaf)
    trial = Trial(base, runner.edited)
    removed = trial.outcomes([runner.edit(leaf, "", whole) for leaf in tried.values()])
    gone = {key: one.found or one.more for key, one in zip(tried, removed, strict=True)}
    changed = {} if whole else _changed(tried, gone, runner, trial)
    others = {path for paths in changed.values() for path in paths}
    for key, outcome in zip(tried, removed, strict=True):
        paths = changed.get(key) or gone[key]
        if key in changed:
            paths = paths + _beside(tried[key], gone[key], paths, others, base)
        found[key] = paths, outcome.refused
    return [found[leaf] if leaf in found else found[leaf.at, leaf.field] for leaf in leaves]


def _beside(leaf: Leaf, gone: list[str], paths: list[str], others: set[str], base: Conversion) -> list[str]:
    """Where a part of a value stands that no other value tried, and where nothing else fills it."""
    return [path for path, text in leaves_at(base, gone) if text in leaf.text and path not in others
            and not any(path == known or _is_within(path, known) for known in paths)]


def _changed(tried: dict[Any, Leaf], gone: dict[Any, list[str]], runner: _Runner, trial: Trial,
             ) -> dict[Any, list[str]]:
    """The paths that are other where a value is another of the same form.

    It shows the place more exactly than the value's absence, which may take a whole element with it, or bring what
    another field says instead. What another value would only add is no effect of this one: it repeats what another
    field says.
    """
    changed: dict[Any, list[str]] = {}
    for others in (_other_digit, _other_numbers, _without_sign, _longer):
        texts: dict[Any, str] = {}
        owners: dict[str, str] = {}
        for key, leaf in tried.items():
            if not (others is _longer and key in changed):
                for text in others(leaf.text):  # two tests with one code would be another message
                    if not runner.has(text) and owners.setdefault(text, leaf.text) == leaf.text:
                        texts[key] = text
                        break
        outcomes = trial.outcomes([runner.edit(tried[key], text) for key, text in texts.items()])
        for key, outcome in zip(texts, outcomes, strict=True):
            if paths := outcome.found or (outcome.more if gone[key] else []):
                known = changed.setdefault(key, [])
                known += [path for path in paths if not any(one == path or _is_within(one, path) for one in known)]
    return changed


def _is_within(path: str, whole: str) -> bool:
    return path.startswith((f"{whole}.", f"{whole}["))


def leaves_of(message: Message) -> list[Leaf]:
    """Every value of a message that is not empty, in order."""
    found = []
    separators = message.separators
    for at, segment in enumerate(message.segments):
        several = len(message.all(segment.name)) > 1
        name = f"{segment.name}[{segment.sequence}]" if several else segment.name
        for number in range(1, segment.size):
            raw = segment.raw_field(number)
            if at == 0 and number < 3:
                found.append(Leaf(at, segment.name, 1, number, 1, 1, 1, raw, f"{name}-{number}"))
                continue
            repetitions = _split(raw, separators.repetition)
            for repetition, whole in enumerate(repetitions, 1):
                components = _split(whole, separators.component)
                for component, part in enumerate(components, 1):
                    pieces = _split(part, separators.subcomponent)
                    for piece, text in enumerate(pieces, 1):
                        if text.strip():
                            place = f"{name}-{number}" + (f"[{repetition}]" if len(repetitions) > 1 else "") \
                                + (f".{component}" if len(components) > 1 or len(pieces) > 1 else "") \
                                + (f".{piece}" if len(pieces) > 1 else "")
                            found.append(Leaf(at, segment.name, segment.sequence, number, repetition, component, piece,
                                              text, place))
    return found


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else [text]


class _Runner:
    """Conversions of variants of one message."""

    def __init__(self, message: Message, convert: Convert, before: Before | None, after: After | None) -> None:
        self.message = message
        self.reads = Reads()
        self._convert = convert
        self._before = before
        self._after = after
        self._texts = {raw for segment in message.segments for raw in re.split(r"[^\w.]+", segment.raw)}

    def base(self) -> Conversion:
        """The conversion as it is, traced."""
        return self._run(traced(self.message, self.reads))

    def _run(self, message: Message) -> Conversion:
        if self._before is not None:
            self.reads.phase = "before"
            message = self._before(message) or message
        self.reads.phase = "convert"
        conversion = self._convert(message)
        self.reads.phase = "after"
        return self._after(conversion, message) if self._after is not None else conversion

    def refusal_without(self, leaf: Leaf) -> GatewayError | None:
        """How the message is refused without a value; None when it is not."""
        result = self._variant(leaf, "")
        return result if isinstance(result, GatewayError) else None

    def deletion(self, leaf: Leaf, base: Conversion) -> tuple[list[str], bool]:
        """What a null deletes of what is stored; shown on what the message with a value in its place would store."""
        without = self._variant(leaf, "")
        if isinstance(without, GatewayError):
            return [], True
        for text in ("x", "20200101", "Y", "1"):
            filled = self._variant(leaf, text)
            if isinstance(filled, Conversion) and (paths := deleted(base, without, filled)):
                return paths, False
        return differing(base, without), False

    def has(self, text: str) -> bool:
        """Whether the message has this text."""
        return text in self._texts

    def edit(self, leaf: Leaf, text: str, whole: bool = False) -> Edit:
        """Another text in the place of a value, or of its ``whole`` field."""
        if whole:
            return Edit((leaf.segment, leaf.field, 0, 0, 0), leaf.at, leaf.field, text)
        kind = leaf.segment, leaf.field, leaf.repetition, leaf.component, leaf.subcomponent
        return Edit(kind, leaf.at, leaf.field, self._replaced(leaf, text))

    def edited(self, edits: Sequence[Edit]) -> Conversion | GatewayError:
        """The conversion of the message with these edits, or how it is refused."""
        share = self._before is None and self._after is None
        try:
            return self._run(edited(self.message, [edit[1:] for edit in edits], share))
        except GatewayError as refusal:
            return refusal
        except Exception:  # a hook that needs the value: it would be a fault, so that the message is not stored
            return GatewayError(Category.FAULT, "the conversion fails without this value")

    def _variant(self, leaf: Leaf, text: str) -> Conversion | GatewayError:
        return self.edited([self.edit(leaf, text)])

    def _replaced(self, leaf: Leaf, text: str) -> str:
        """The field's text with another value in one place."""
        separators = self.message.separators
        repetitions = _split(self.message.segments[leaf.at].raw_field(leaf.field), separators.repetition)
        components = _split(repetitions[leaf.repetition - 1], separators.component)
        pieces = _split(components[leaf.component - 1], separators.subcomponent)
        pieces[leaf.subcomponent - 1] = text
        components[leaf.component - 1] = separators.subcomponent.join(pieces)
        repetitions[leaf.repetition - 1] = separators.component.join(components)
        return separators.repetition.join(repetitions)


def _other_digit(text: str) -> Iterator[str]:
    """Another last digit; of a time another year."""
    at = 3 if _TIME.match(text) else max(map(text.rfind, "0123456789"))
    if at >= 0:
        last = int(text[at])
        for step in range(1, 10):
            yield f"{text[:at]}{(last - step) % 10 if last > 1 else (last + step) % 10}{text[at + 1:]}"


def _other_numbers(text: str) -> Iterator[str]:
    """Of several numbers each another, a digit before it, so that they keep their order."""
    if not _TIME.match(text) and len(_NUMBER.findall(text)) > 1:
        for digit in "123456789":
            yield _NUMBER.sub(digit + r"\g<0>", text)


def _without_sign(text: str) -> Iterator[str]:
    """A number without what compares it: ``<5`` becomes ``5``."""
    if text[0] in _SIGNS and text.lstrip(_SIGNS):
        yield text.lstrip(_SIGNS)


def _longer(text: str) -> Iterator[str]:
    yield text + "x"


def _fate(leaf: Leaf, paths: list[str], required: bool, at_work: set[Any] | None, reads: Reads,
          conversion: Conversion) -> Fate:
    """``at_work``: the segments, and the segments with fields, of which some value fills something; None: not tried."""
    if said := _reported(leaf, conversion):
        return Fate(leaf, "reported", tuple(paths), required, said)
    if leaf.at == 0 and leaf.field < 3:
        return Fate(leaf, "read", (), True, reason_for(leaf.segment, leaf.field))
    if paths or required:
        return Fate(leaf, "used", tuple(paths), required)
    phases = reads.phases(leaf.at, leaf.field, (leaf.repetition, leaf.component, leaf.subcomponent))
    here = "convert" in phases or read_elsewhere(leaf.segment, leaf.field)
    kind = "read" if here else "hook" if phases else "kept"
    if kind == "hook":
        reason = "the hospital's hook reads it"
    elif at_work is None:
        reason = "the conversion reads it" if kind == "read" else reason_for(leaf.segment, leaf.field)
    elif (leaf.at, leaf.field) in at_work:
        reason = "other parts of this field say what is needed"
    else:
        reason = reason_for(leaf.segment, leaf.field, leaf.at in at_work, kind == "read")
    return Fate(leaf, kind, reason=reason)


def _reported(leaf: Leaf, conversion: Conversion) -> str:
    """What a remark or the list of unmapped codes says of a value; "" when they do not name it."""
    for remark in conversion.remarks:
        if (place := _PLACE.match(remark.where)) and place[1] == leaf.segment \
                and int(place[2] or 1) == leaf.sequence and place[3] in (None, str(leaf.field)):
            return remark.sentence
    for unmapped in conversion.unmapped:
        if unmapped.where == f"{leaf.segment}-{leaf.field}" and leaf.component in (1, 4) \
                and unmapped.local == " ".join(leaf.text.split()):
            return "unmapped: no row of codes.csv has this code; stored under the hospital's own code"
    return ""


def _blamed(leaves: list[Leaf], refusal: GatewayError, runner: _Runner) -> tuple[list[Fate], str]:
    """The fates of a refused message: the values at the refused place without which the refusal would be another."""
    place = _PLACE.match(refusal.where or "")
    at_fault: list[Leaf] = []
    if place and place[3]:
        numbered = place[2] or (told := _NUMBERED.search(refusal.message)) and told[1]
        there = [leaf for leaf in leaves if leaf.segment == place[1] and leaf.field == int(place[3])
                 and (not numbered or leaf.sequence == int(numbered))]
        at_fault = [leaf for leaf in there if _differs(runner.refusal_without(leaf), refusal)] or there
    faults = set(at_fault)
    fates = [Fate(leaf, "refused", reason=refusal.message) if leaf in faults else Fate(leaf, "kept", reason=_REFUSED)
             for leaf in leaves]
    return fates, "" if at_fault else refusal.where or ""


def _faulty(leaves: list[Leaf], fault: GatewayError, runner: _Runner) -> list[Fate]:
    """The fates of a message on which the conversion fails: the values without which it does not."""
    return [Fate(leaf, "refused", reason=fault.message)
            if (leaf.at, leaf.field) in runner.reads.seen and runner.refusal_without(leaf) is None
            else Fate(leaf, "kept", reason=_REFUSED) for leaf in leaves]


def _differs(other: GatewayError | None, refusal: GatewayError) -> bool:
    return other is None or (other.where, other.message) != (refusal.where, refusal.message)
