"""Our FHIR beside that of other converters for the same public messages: every difference, and who is right.

`python -m tests.differential` prints the report. The verdicts, in ``differential.toml``, are rules for places such as
``Patient.name.use``; a difference that no rule names fails `test_differential`. Ids are left out, a reference counts
by the type that it names, times by their instant, and lists as sets: what is said is compared, place by place.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from gateway import hl7v2
from gateway.adapter import Adapter, load
from gateway.config import SHIPPED_ADAPTERS
from gateway.errors import GatewayError

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus" / "hl7v2"
RULES = Path(__file__).with_name("differential.toml")
Facts = dict[str, set[str]]  # "Patient.name.family" → what is said there
_LEFT_OUT = {"id", "resourceType", "meta", "text", "fullUrl", "url#"}
_STEP = re.compile(r"\.(?![^(]*\))")  # a full stop, but for those in the name of an extension
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict on all differences that match; ``place``, ``kind`` and ``message`` are patterns of `fnmatch`, several
    with blanks between."""

    place: str
    right: str  # "ours"; "theirs": a loss of ours; "both": two ways to say it; "neither"
    why: str
    kind: str = "*"
    message: str = "*"  # its folder and name, such as "microsoft__FHIR-Converter/DFT-P03-01"

    def patterns(self, one: Difference) -> list[str]:
        """The patterns of ``place`` that name the difference; none where its kind or message is another."""
        if not (_fits(one.kind, self.kind) and _fits(one.message, self.message)):
            return []
        return [pattern for pattern in self.place.split() if _pattern(pattern).match(one.place)]


def _fits(name: str, patterns: str) -> bool:
    return patterns == "*" or any(_pattern(pattern).match(name) for pattern in patterns.split())


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))  # fnmatch itself remembers 256 of them


@dataclass(frozen=True, slots=True)
class Difference:
    """What two converters say of one place of one message.

    ``kind``: "theirs" or "ours", where only one of them says anything there (the place is then the highest that the
    other leaves out: a whole resource, an element); "theirs-more" or "ours-more", where one says all that the other
    says, and more; "value", where each says something that the other does not.
    """

    message: str
    kind: str
    place: str
    theirs: str
    ours: str


def pairs() -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Each public message with the FHIR that another converter made of it, and that converter's name."""
    for expected in sorted(CORPUS.rglob("*.expected.json")):
        message = expected.with_name(expected.name.replace(".expected.json", ".hl7"))
        yield message.parent.name + "/" + message.stem, message.read_bytes(), json.loads(expected.read_bytes())


def facts_of(resources: list[dict[str, Any]]) -> Facts:
    """What resources say, by place."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for resource in resources:
        _gather(resource, resource["resourceType"], found)
    return dict(found)


def _gather(value: Any, place: str, found: defaultdict[str, set[str]]) -> None:
    if isinstance(value, dict):
        if "reference" in value and isinstance(value["reference"], str):
            named = value["reference"].split("/")[0].removeprefix("urn:uuid:")
            found[place].add(f"→ {value.get('type') or (named if named[:1].isupper() else 'a resource')}")
            value = {name: item for name, item in value.items() if name not in ("reference", "type")}
        if "url" in value and place.endswith("xtension"):
            place = f"{place}({value['url'].rpartition('/')[2]})"
        for name, item in value.items():
            if name not in _LEFT_OUT and not (name == "url" and place.endswith(")")):
                _gather(item, f"{place}.{name}", found)
    elif isinstance(value, list):
        for item in value:
            _gather(item, place, found)
    elif value is not None:
        found[place].add(_said(value))


def _said(value: Any) -> str:
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return format(Decimal(str(value)).normalize(), "f")
    text = str(value).strip()
    if _TIME.fullmatch(text):
        return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC).isoformat()
    return text


def ours(raw: bytes, adapter: Adapter) -> list[dict[str, Any]]:
    """Our resources, those among them that a message names and does not carry; refusals are raised."""
    message = adapter.parse(raw)
    conversion = adapter.convert_hl7(message, hl7v2.peek(raw).sending_facility)
    amended = [made for amendment in conversion.amendments if (made := amendment.change(None)) is not None]
    return [*(change.resource for change in conversion.changes), *amended]


def compare(message: str, theirs: Facts, mine: Facts) -> Iterator[Difference]:
    """Every place where the two do not say the same."""
    seen = set()
    for place in sorted(theirs.keys() | mine.keys()):
        them, us = theirs.get(place, set()), mine.get(place, set())
        if them == us:
            continue
        if them and us:
            kind = "theirs-more" if us < them else "ours-more" if them < us else "value"
        else:
            kind, place = ("theirs", _highest(place, mine)) if them else ("ours", _highest(place, theirs))
        if (kind, place) not in seen:
            seen.add((kind, place))
            yield Difference(message, kind, place, ", ".join(sorted(them - us)), ", ".join(sorted(us - them)))


def _highest(place: str, said: Facts) -> str:
    """The highest element above ``place`` of which nothing is said."""
    steps = _STEP.split(place)
    for n in range(1, len(steps)):
        above = ".".join(steps[:n])
        if not any(other == above or other.startswith((above + ".", above + "(")) for other in said):
            return above
    return place


def differences() -> tuple[list[Difference], dict[str, str]]:
    """All differences, and what became of each message: "compared", or why we refuse it."""
    adapter = load(SHIPPED_ADAPTERS / "generic")
    found: list[Difference] = []
    outcomes: dict[str, str] = {}
    for name, raw, expected in pairs():
        try:
            resources = [resource for piece in hl7v2.split(raw) for resource in ours(piece, adapter)]
        except GatewayError as error:
            outcomes[name] = f"{error.category.value} {error.where} {'^'.join(hl7v2.peek(raw).message_type[:2])}"
            continue
        outcomes[name] = "compared"
        theirs = [entry["resource"] for entry in expected.get("entry", ())]
        found += compare(name, facts_of(theirs), facts_of(resources))
    return found, outcomes


def rules() -> list[Rule]:
    """The verdicts, first match first."""
    return [Rule(**table) for table in tomllib.loads(RULES.read_text(encoding="utf-8")).get("rule", ())]


def verdict(difference: Difference, known: list[Rule]) -> Rule | None:
    """The first rule that names the difference."""
    return next((rule for rule in known if rule.patterns(difference)), None)


def by_rule(found: list[Difference], known: list[Rule]) -> dict[Rule | None, dict[tuple[str, str], list[Difference]]]:
    """The differences of each rule, by kind and place."""
    sorted_out: dict[Rule | None, dict[tuple[str, str], list[Difference]]] = {}
    for one in found:
        sorted_out.setdefault(verdict(one, known), {}).setdefault((one.kind, one.place), []).append(one)
    return sorted_out


def summary(judged: dict[Rule | None, dict[tuple[str, str], list[Difference]]]) -> Counter[str]:
    """How many places (of one kind, under one rule) have which verdict."""
    return Counter(rule.right if rule else "undecided" for rule, places in judged.items() for _ in places)


def report() -> str:
    """As Markdown: counts by verdict, then each rule with its places, then what no rule names."""
    found, outcomes = differences()
    known = rules()
    sorted_out = by_rule(found, known)
    count = summary(sorted_out)
    refused = Counter(what for what in outcomes.values() if what != "compared")
    lines = [f"{len(outcomes) - refused.total()} messages compared; {count.total()} places differ "
             f"({len(found)} times): " + ", ".join(f"{right} {n}" for right, n in count.most_common()), "",
             "Refused: " + ", ".join(f"{what} ({n})" for what, n in refused.most_common()), ""]
    for rule in [*known, None]:
        if places := sorted_out.get(rule):
            lines += [f"## `{rule.place}`: right is {rule.right}. {rule.why}" if rule else "## undecided", ""]
            lines += [f"- {kind} `{place}` ({len(some)} messages): {some[0].theirs[:70]!r} | {some[0].ours[:70]!r}"
                      for (kind, place), some in sorted(places.items(), key=lambda item: item[0][::-1])]
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
