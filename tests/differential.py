"""Our FHIR beside that of other converters for the same public messages: every difference, and who is right.

`python -m tests.differential` prints the report. The verdicts, in ``differential.toml``, are rules for places such as
``Patient.name.use``; a difference that no rule names fails `test_differential`. Ids are left out, a reference counts by the
type that it names, times by their instant, and lists as sets: what is compared is what is said, place by place.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
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
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict: ``kind`` is "theirs" (only they say it), "ours", or "value" (both say something else)."""

    kind: str
    place: str  # a pattern of `fnmatch`
    right: str  # "ours", "theirs", "both" or "neither"
    why: str
    converter: str = "*"


@dataclass(slots=True)
class Difference:
    """One place of one kind, over all messages of a converter."""

    converter: str
    kind: str
    place: str
    messages: set[str] = field(default_factory=set)
    examples: list[tuple[str, str]] = field(default_factory=list)  # (theirs, ours)


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


def differences() -> tuple[list[Difference], Counter[str]]:
    """All differences, and how many messages were compared or refused for which reason."""
    adapter = load(SHIPPED_ADAPTERS / "generic")
    found: dict[tuple[str, str, str], Difference] = {}
    outcomes: Counter[str] = Counter()
    for name, raw, expected in pairs():
        try:
            resources = [resource for piece in hl7v2.split(raw) for resource in ours(piece, adapter)]
        except GatewayError as error:
            outcomes[f"{error.category.value} {error.where} {'^'.join(hl7v2.peek(raw).message_type[:2])}"] += 1
            continue
        outcomes["compared"] += 1
        theirs = facts_of([entry["resource"] for entry in expected.get("entry", ())])
        mine = facts_of(resources)
        for place in sorted(theirs.keys() | mine.keys()):
            them, us = theirs.get(place, set()), mine.get(place, set())
            if them == us:
                continue
            kind = "ours" if not them else "theirs" if not us else "value"
            key = name.partition("/")[0], kind, place
            one = found.setdefault(key, Difference(*key))
            one.messages.add(name)
            one.examples.append((", ".join(sorted(them - us)), ", ".join(sorted(us - them))))
    return list(found.values()), outcomes


def rules() -> list[Rule]:
    """The verdicts, first match first."""
    return [Rule(**table) for table in tomllib.loads(RULES.read_text(encoding="utf-8")).get("rule", ())]


def verdict(difference: Difference, known: list[Rule]) -> Rule | None:
    """The first rule that names the difference."""
    return next((rule for rule in known if rule.kind in (difference.kind, "any")
                 and fnmatch.fnmatchcase(difference.place, rule.place)
                 and fnmatch.fnmatchcase(difference.converter, rule.converter)), None)


def report() -> str:
    """As Markdown: counts by verdict, then each rule with its places, then what no rule names."""
    found, outcomes = differences()
    known = rules()
    by_rule: defaultdict[Rule | None, list[Difference]] = defaultdict(list)
    for difference in found:
        by_rule[verdict(difference, known)].append(difference)
    count = Counter(rule.right if rule else "undecided" for rule, some in by_rule.items() for _ in some)
    lines = [f"{outcomes.pop('compared')} messages compared; {len(found)} places differ: "
             + ", ".join(f"{right} {n}" for right, n in count.most_common()), "",
             "Refused: " + ", ".join(f"{what} ({n})" for what, n in outcomes.most_common()), ""]
    for rule in [*known, None]:
        if some := by_rule.get(rule):
            lines += [f"## {rule.kind} `{rule.place}`: right is {rule.right}. {rule.why}" if rule else "## undecided", ""]
            lines += [f"- {d.converter[:10]} {d.kind} `{d.place}` ({len(d.messages)} messages): "
                      f"{d.examples[0][0][:70]!r} | {d.examples[0][1][:70]!r}" for d in sorted(some, key=lambda d: d.place)]
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
