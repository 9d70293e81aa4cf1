"""A hospital's folder from its samples: manifest, codes, candidates, profile; and what the samples become today."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway import conformance, hl7v2
from gateway.adapter import Adapter, load
from gateway.errors import Category, GatewayError
from gateway.hl7v2 import Message
from gateway.onboarding import codes, profile
from gateway.onboarding.habits import Habits, read_habits, senders
from gateway.onboarding.images import ImageHabits, read_images
from gateway.onboarding.manifest import Hospital, manifest_text, obvious_tables
from gateway.onboarding.pseudonyms import Pseudonyms
from gateway.onboarding.samples import Samples
from gateway.onboarding.suggest import Candidate, suggest

SUGGESTED = "codes.suggested.csv"
PROFILE = "profile.json"
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,47}\Z")


@dataclass(slots=True)
class Onboarded:
    """What was written and found."""

    files: list[Path]
    habits: Habits
    images: ImageHabits
    codes: int = 0
    proposed: int = 0  # of them with a candidate
    accepted: int = 0
    would_be: int = 0  # of the refused, accepted with the obvious of what the manifest proposes
    refused: Counter[str] = field(default_factory=Counter)  # category, place and sentence → messages


def slug_of(folder: Path) -> str:
    """The institution's id by its folder's name; INVALID when that is none."""
    slug = folder.name.lower().replace("_", "-")
    if not _SLUG.match(slug):
        raise GatewayError(Category.INVALID, f"'{folder.name}' cannot be an institution's id; name the folder with "
                           "a-z, 0-9 and '-', at most 48 long", "NAME")
    return slug


def choose_facilities(samples: Samples, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], Counter[str]]:
    """The sending facilities that the folder is for, and all that the samples hold.

    ``wanted`` names them; without it the most frequent one is taken. INVALID when no sample is of a wanted one.
    """
    found: Counter[str] = Counter()
    for (facility, _), count in senders(s.raw for s in samples.messages).items():
        found[facility] += count
    for facility in wanted:
        if facility not in found:
            raise GatewayError(Category.INVALID, f"no sample has '{facility}' in MSH-4; there are "
                               + ", ".join(f"'{name}' ({count})" for name, count in found.most_common()), "--facility")
    return wanted or tuple(name for name, _ in found.most_common(1)), found


def onboard(folder: Path, samples: Samples, hospital: Hospital,
            progress: Callable[[str], None] = lambda step: None) -> Onboarded:
    """Write the folder from the samples of the hospital's facilities; INVALID when it is there already."""
    if folder.exists() and any(folder.iterdir()):
        raise GatewayError(Category.INVALID, f"'{folder}' is there already; choose another name", "NAME")
    progress("reading how the messages are written")
    habits, messages = read_habits([s.raw for s in samples.messages if _of(s.raw, hospital.facilities)])
    images = read_images(samples.images)
    done = Onboarded([], habits, images)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _fill(done, folder, messages, hospital, progress)
    except BaseException:  # half a hospital would stand in the way of the next attempt
        shutil.rmtree(folder)
        raise
    return done


def _fill(done: Onboarded, folder: Path, messages: list[tuple[bytes, Message]], hospital: Hospital,
          progress: Callable[[str], None]) -> None:
    (folder / "examples").mkdir()
    _write(done, folder / "manifest.toml", manifest_text(hospital, done.habits, done.images))
    _write(done, folder / "codes.csv", codes.codes_csv([]))
    progress("looking for candidates of the catalogue")
    _codes(done, folder, [message for _, message in messages])
    if messages:
        progress("making the profile")
        keep_profile(done.files, folder, profile.profile_of(messages))
    _convert(done, load(folder), messages, progress)


def _of(raw: bytes, facilities: tuple[str, ...]) -> bool:
    return any(facility in facilities for facility, _ in senders([raw]))


def _codes(done: Onboarded, folder: Path, messages: list[Message]) -> None:
    local = [*codes.gather(messages, load(folder).source), *done.images.codes.values()]
    unique = list({code.local: code for code in reversed(local)}.values())[::-1]
    found = propose(unique)
    done.codes, done.proposed = len(unique), sum(bool(candidates) for candidates in found)
    _write(done, folder / "codes.csv", codes.codes_csv(codes.with_new([], unique)))
    _write(done, folder / SUGGESTED, codes.suggested_csv(unique, found))


def propose(local: list[codes.LocalCode]) -> list[list[Candidate]]:
    """The candidates of each code; panels where the code is an order's."""
    tests = [code for code in local if code.kind != "order"]
    orders = [code for code in local if code.kind == "order"]
    found = dict(zip((c.local for c in tests), suggest([c.row for c in tests]), strict=True))
    found |= dict(zip((c.local for c in orders), suggest([c.row for c in orders], panels=True), strict=True))
    return [found[code.local] for code in local]


def keep_profile(files: list[Path], folder: Path, made: profile.Profile) -> None:
    """Write ``profile.json`` and, for people, ``profile.tsv``."""
    from gateway.onboarding.explain import field_name

    (folder / PROFILE).write_bytes(profile.to_json(made))
    text = "\n".join(profile.to_tsv(made, field_name)) + "\n"
    (folder / "profile.tsv").write_text(text, encoding="utf-8")
    files += [folder / PROFILE, folder / "profile.tsv"]


def _convert(done: Onboarded, adapter: Adapter, messages: list[tuple[bytes, Message]],
             progress: Callable[[str], None]) -> None:
    """What becomes of the samples as the folder stands, and with the obvious of what its manifest proposes."""
    source = dataclasses.replace(adapter.source, tables=obvious_tables(done.habits))
    agreed = dataclasses.replace(adapter, source=source)
    for number, (_, message) in enumerate(messages):
        if number % 100 == 0:
            progress(f"converting message {number} of {len(messages)}")
        if (error := _refusal(adapter, message)) is None:
            done.accepted += 1
        else:
            done.refused[str(error)] += 1
            done.would_be += _refusal(agreed, message) is None


def _refusal(adapter: Adapter, message: Message) -> GatewayError | None:
    try:
        conformance.checked(adapter.convert_hl7(message, message.header.sending_facility))
    except GatewayError as error:
        return error
    return None


def _write(done: Onboarded, path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")
    if path not in done.files:
        done.files.append(path)


def keep_examples(folder: Path, samples: Samples, most: int) -> list[Path]:
    """Up to ``most`` samples as examples with invented patients, and what they become: those that together show most of
    what the hospital sends, a refused one for each kind of refusal, but no more than a third of these.

    The secret of the replacements is made here and kept nowhere.
    """
    adapter, pseudonyms = load(folder), Pseudonyms(os.urandom(32))
    accepted: list[tuple[bytes, frozenset[str]]] = []
    refused: dict[str, bytes] = {}
    for sample in samples.messages:
        raw, message = _invented(sample.raw, adapter, pseudonyms)
        if raw is None or message is None:
            continue
        try:
            conformance.checked(adapter.convert_hl7(adapter.parse(raw), message.header.sending_facility))
            accepted.append((raw, _features(message)))
        except GatewayError as error:
            refused.setdefault(f"{error.category.value}-{error.where}", raw)
    if not accepted and not refused:
        raise GatewayError(Category.NOT_FOUND, f"no message of {adapter.name} is there that can be read and freed of "
                           "its patients", "MESSAGES")
    stopped = dict(list(refused.items())[:max(1, most // 3)])
    chosen = [*_most_telling(accepted, most - len(stopped)), *((raw, name) for name, raw in stopped.items())]
    files = []
    first = len(conformance.examples(folder)) + 1
    (folder / "examples").mkdir(exist_ok=True)
    for number, (raw, name) in enumerate(chosen, first):
        path = folder / "examples" / f"{number:02}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.hl7"
        path.write_bytes(raw)
        files.append(path)
    return files + conformance.golden(folder)


def _invented(raw: bytes, adapter: Adapter, pseudonyms: Pseudonyms) -> tuple[bytes | None, Message | None]:
    """A message of this hospital with invented patients, and as it was sent; nothing for another's or a broken one."""
    try:
        message = hl7v2.parse(raw, adapter.source.charset)
    except GatewayError:
        return None, None
    if not adapter.per_facility and message.header.sending_facility not in adapter.sending_facility:
        return None, None
    return pseudonyms.message(message), message


def _features(message: Message) -> frozenset[str]:
    """What a message shows: its type, places, and values of small tables."""
    made = profile.profile_of([(b"", message)])
    places = {f"{name} {place}" for name, t in made.types.items() for place in t.places}
    values = {f"{place}={value}" for place, counter in made.values.items() for value in counter}
    tests = {f"{place} {code}" for place, codes_ in made.codes.items() for code in codes_}
    return frozenset((*made.types, *places, *values, *tests))


def _most_telling(messages: list[tuple[bytes, frozenset[str]]], most: int) -> list[tuple[bytes, str]]:
    """One after the other the message that shows most of what none before has shown."""
    shown: set[str] = set()
    chosen: list[tuple[bytes, str]] = []
    left = list(messages)
    while left and len(chosen) < most:
        raw, features = max(left, key=lambda m: len(m[1] - shown))
        if chosen and not features - shown:
            break
        left.remove((raw, features))
        shown |= features
        chosen.append((raw, next(f for f in sorted(features) if "^" in f and " " not in f)))
    return chosen


def new(folder: Path) -> list[Path]:
    """A folder without samples: what `gateway.conformance.new` writes."""
    slug_of(folder)
    return conformance.new(folder)
