"""`huren adapter new`, `codes`, `profile`, `drift`: a hospital's folder from its samples, and whether it stays so."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway import hl7v2
from gateway.adapter import Adapter, hospital_folders, load, read_codes
from gateway.commands.opening import opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError

if TYPE_CHECKING:
    from gateway.onboarding.profile import Profile
    from gateway.onboarding.samples import Samples
    from gateway.onboarding.scaffold import Onboarded
    from gateway.store import Store

_EXISTING = click.Path(exists=True, path_type=Path)
_MESSAGES = click.argument("messages", nargs=-1, type=_EXISTING, metavar="[MESSAGES]…")
_MOST_TOLD = 20


def folder_named(settings: Settings, name: str) -> Path:
    """The hospital folder that a name or a path means; NOT_FOUND where there is none."""
    places = [Path(name)] if "/" in name else [*(parent / name for parent in settings.adapter_folders), Path(name)]
    for place in places:
        if (place / "manifest.toml").exists():
            return place
    raise GatewayError(Category.NOT_FOUND, f"there is no hospital folder '{name}'; `huren adapter new {name}` makes "
                       "one", "NAME")


# -------------------------------------------------------------------------------------------------- new

@click.command()
@click.argument("name")
@click.option("--samples", type=_EXISTING, multiple=True, help="Folder or file with messages that the hospital sends; "
                                                               "may be given several times.")
@click.option("--facility", multiple=True, help="MSH-4 that the folder is for; the most frequent one when left out.")
@click.option("--hospital", help="The hospital's name as people read it.")
@click.pass_obj
def new(settings: Settings, name: str, samples: tuple[Path, ...], facility: tuple[str, ...],
        hospital: str | None) -> None:
    """Make the folder NAME: in the first folder of HUREN_ADAPTERS, or where NAME says when it is a path.

    From sample messages it writes the manifest and the codes that they show, candidates of the catalogue for a person
    to approve, and the message profile. Without samples it writes the bare files.
    """
    from gateway.onboarding import scaffold

    folder = Path(name) if "/" in name else settings.adapter_folders[0] / name
    slug = scaffold.slug_of(folder)
    asked = _asked_samples(samples)
    if not asked:
        for path in scaffold.new(folder):
            click.echo(path)
        return
    if folder.exists() and any(folder.iterdir()):
        raise GatewayError(Category.INVALID, f"'{folder}' is there already; choose another name", "NAME")
    from gateway.onboarding.manifest import Hospital

    with _progress() as tell:
        found = _read(asked, tell)
        chosen, all_facilities = scaffold.choose_facilities(found, facility)
    if len(all_facilities) > 1 and not facility:
        chosen = _asked_facilities(chosen, all_facilities)
    if hospital is None:
        hospital = click.prompt("Name of the hospital as people read it", default=slug) if _interactive() else slug
    with _progress() as tell:
        done = scaffold.onboard(folder, found, Hospital(slug, hospital, settings.timezone, chosen), tell)
    _tell_new(done, found, chosen, all_facilities, name)


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asked_samples(samples: tuple[Path, ...]) -> list[Path]:
    """The folders given; on a terminal, asked for."""
    if samples or not _interactive():
        return list(samples)
    answer = click.prompt("Folder with sample messages of the hospital (empty: none yet)", default="",
                          show_default=False, type=click.Path(path_type=str))
    if answer and not Path(answer).expanduser().exists():
        raise GatewayError(Category.NOT_FOUND, f"there is no '{answer}'", "--samples")
    return [Path(answer).expanduser()] if answer else []


def _asked_facilities(chosen: tuple[str, ...], found: Counter[str]) -> tuple[str, ...]:
    click.echo("The samples come from several sending facilities (MSH-4): "
               + ", ".join(f"'{name}' ({count})" for name, count in found.most_common(_MOST_TOLD))
               + (" …" if len(found) > _MOST_TOLD else ""), err=True)
    if not _interactive():
        return chosen
    answer = click.prompt("Which is this hospital? Several with commas", default=",".join(chosen))
    wanted = tuple(dict.fromkeys(part.strip() for part in answer.split(",")))
    if unknown := [name for name in wanted if name not in found]:
        raise GatewayError(Category.INVALID, f"no sample has '{unknown[0]}' in MSH-4", "--facility")
    return wanted


def _tell_new(done: Onboarded, found: Samples, chosen: tuple[str, ...], facilities: Counter[str], name: str) -> None:
    habits = done.habits
    for path in done.files:
        click.echo(path)
    click.echo()
    if habits.messages:
        click.echo(f"{habits.messages} messages of {', '.join(repr(f) for f in chosen)} read: "
                   + ", ".join(f"{kind} {count}" for kind, count in habits.types.most_common(8)))
    if others := sum(n for f, n in facilities.items() if f not in chosen):
        click.echo(f"left aside: {others} messages of other facilities (--facility takes several; two hospitals need "
                   "two folders)")
    for what, count in (found.left + habits.unreadable + done.images.unreadable).most_common(_MOST_TOLD):
        click.echo(f"left aside: {count} × {what}")
    if done.images.objects:
        click.echo(f"{done.images.objects} DICOM objects of {done.images.studies} studies read: "
                   + ", ".join(f"{m} {n}" for m, n in done.images.modalities.most_common()))
    for line in _habits(done):
        click.echo(line)
    click.echo(f"{done.codes} local codes, {done.proposed} of them with candidates in the catalogue")
    agreed = done.accepted + done.would_be
    also = f", {agreed} with what is obvious in the manifest's proposals" if done.would_be else ""
    click.echo(f"As the folder stands, {done.accepted} of {habits.messages} messages are accepted{also}"
               + ("; refused:" if done.refused else "."))
    for sentence, count in done.refused.most_common(_MOST_TOLD):
        click.echo(f"  {count} × {sentence}")
    click.echo()
    click.echo("Next: 1. read manifest.toml: what is proposed there stands behind '# '")
    click.echo("      2. open codes.suggested.csv in a spreadsheet, fill the column 'approved', save it, then")
    click.echo(f"         `huren adapter codes {name}`")
    click.echo(f"      3. `huren adapter check {name} --messages SAMPLES` until nothing is refused that should not be")
    click.echo(f"      4. `huren adapter keep {name} SAMPLES`: a few examples with invented patients")


def _habits(done: Onboarded) -> Iterator[str]:
    """What else the samples show, that no line of the manifest says."""
    habits = done.habits
    if habits.nm_texts.count:
        yield f"{habits.nm_texts.count} of {habits.nm_texts.of} values typed NM are no numbers; they are kept as texts"
    if habits.prose_ranges:
        some = "; ".join(text for text, _ in habits.prose_ranges.most_common(5))
        prose = sum(habits.prose_ranges.values())
        yield f"{prose} of {habits.ranges} reference ranges are prose, kept as text alone (9 for any number): {some}"
    if habits.notes:
        yield "notes (NTE) follow " + ", ".join(f"{name} {count}" for name, count in habits.notes.most_common())
    if habits.own_segments:
        yield ("segments of its own, kept in the stored message and seen by hooks.py alone: "
               + ", ".join(f"{name} in {count} messages" for name, count in sorted(habits.own_segments.items())))


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being done; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: None
        return
    with console.status("…") as status:
        yield status.update


def _read(paths: list[Path], tell: Callable[[str], None]) -> Samples:
    from gateway.onboarding import samples

    count = 0

    def each(path: Path) -> None:
        nonlocal count
        count += 1
        tell(f"reading file {count}: {path.name}")

    return samples.read(paths, each)


# -------------------------------------------------------------------------------------------------- codes

@click.command()
@click.argument("name")
@click.option("--samples", type=_EXISTING, multiple=True, help="First look for new codes in these messages.")
@click.option("--list", "listed", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The list with approvals, when it is not codes.suggested.csv of the folder.")
@click.option("--accept", type=click.FloatRange(0.5, 1), metavar="SCORE",
              help="Also take the first candidate where its score is at least so high and the second's is not.")
@click.pass_obj
def codes(settings: Settings, name: str, samples: tuple[Path, ...], listed: Path | None, accept: float | None) -> int:
    """Put what a person approved in codes.suggested.csv into codes.csv of the hospital NAME.

    In the column 'approved': 1, 2, 3 or x (the first) takes a candidate, an item's code takes that item, - says that
    the code is no item by nature. Empty cells decide nothing.
    """
    from gateway.onboarding import codes as lists

    folder = folder_named(settings, name)
    load(folder)  # a broken folder says so before anything is written
    if samples:
        return _new_codes(folder, list(samples))
    source = listed or folder / _suggested()
    if not source.exists():
        raise GatewayError(Category.NOT_FOUND, f"there is no {source.name} in {folder.name}; `huren adapter codes "
                           f"{name} --samples FOLDER` makes it", source.name)
    rows = read_codes(folder / "codes.csv")
    before = {row.local: row for row in rows}
    decided = lists.decide(rows, lists.read_suggested(source.read_bytes(), source.name), accept)
    _replace(folder / "codes.csv", lists.codes_csv(decided.rows))
    for local, item in decided.taken.items():
        was = f" (was {before[local].item})" if before[local].item else ""
        click.echo(f"{local} {before[local].display} → {item} {_name(item)}{was}")
    for line, sentence in decided.odd:
        click.echo(f"{source.name}:{line}: {sentence}", err=True)
    click.echo(f"{len(decided.taken)} rows of codes.csv changed, {sum(not r.item for r in decided.rows)} codes are not "
               "mapped yet", err=True)
    return 1 if decided.odd else 0


def _suggested() -> str:
    from gateway.onboarding.scaffold import SUGGESTED

    return SUGGESTED


def _name(item: str) -> str:
    from gateway.terminology import catalogue

    return catalogue().display(item) or ("(no item by nature)" if item == "-" else "")


def _new_codes(folder: Path, paths: list[Path]) -> int:
    """Codes that come in messages and have no row yet: into codes.csv without item, and the list made anew for all that
    are not mapped."""
    from gateway.onboarding import codes as lists
    from gateway.onboarding.scaffold import propose

    adapter = load(folder)
    with _progress() as tell:
        found = lists.gather((message for _, message in _parsed(adapter, _read(paths, tell))), adapter.source)
        rows = read_codes(folder / "codes.csv")
        known = {row.local: row.item for row in rows}
        fresh = [code for code in found if code.local not in known]
        open_ = [code for code in found if not known.get(code.local)]
        tell("looking for candidates of the catalogue")
        text = lists.suggested_csv(open_, propose(open_))
    path = folder / _suggested()
    proposals = lists.read_suggested(path.read_bytes()) if path.exists() else []
    if any(p.approved and not known.get(p.row.local) for p in proposals):
        raise GatewayError(Category.CONFLICT, f"{path.name} holds approvals that are not in codes.csv yet; run `huren "
                           f"adapter codes {folder.name}` first", path.name)
    _replace(folder / "codes.csv", lists.codes_csv(lists.with_new(rows, fresh)))
    _replace(path, text)
    click.echo(f"{len(fresh)} new codes in codes.csv; {len(open_)} to approve in {path}")
    return 0


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(path.name + ".new")
    aside.write_text(text, encoding="utf-8", newline="")
    aside.replace(path)


def _parsed(adapter: Adapter, found: Samples) -> Iterator[tuple[bytes, hl7v2.Message]]:
    """The samples that this hospital's manifest claims and that can be read, as sent (before any hook)."""
    for sample in found.messages:
        try:
            if not adapter.per_facility and hl7v2.peek(sample.raw).sending_facility not in adapter.sending_facility:
                continue
            yield sample.raw, hl7v2.parse(sample.raw, adapter.source.charset)
        except GatewayError:
            continue


# -------------------------------------------------------------------------------------------------- keep

@click.command()
@click.argument("name")
@click.argument("messages", nargs=-1, type=_EXISTING, required=True, metavar="MESSAGES…")
@click.option("--count", type=click.IntRange(1, 200), default=8, show_default=True, help="How many at most.")
@click.pass_obj
def keep(settings: Settings, name: str, messages: tuple[Path, ...], count: int) -> None:
    """Keep a few of MESSAGES as examples of the hospital NAME, with invented patients in place of the real ones.

    Names, numbers, addresses, telephones and birthdays of everybody in the fields for people are replaced, also where
    they stand again in a text. A person whom a text alone names is not found: read what is kept before you share it.
    """
    from gateway.onboarding import scaffold

    folder = folder_named(settings, name)
    with _progress() as tell:
        found = _read(list(messages), tell)
        tell("replacing patients")
        files = scaffold.keep_examples(folder, found, count)
    for path in files:
        click.echo(path)
    click.echo("patients are replaced by invented ones; read the files before you share them, and the expected ones as "
               "every other hospital will see them", err=True)


# -------------------------------------------------------------------------------------------------- profile, drift

_INBOX = (click.option("--inbox", is_flag=True, help="Read what arrived, from the gateway's inbox."),
          click.option("--since", type=click.IntRange(1), default=7, show_default=True, metavar="DAYS",
                       help="With --inbox: not older than so many days."),
          click.option("--limit", type=click.IntRange(1), default=2000, show_default=True,
                       help="With --inbox: the newest so many messages."))


def _inbox_options(function: Callable[..., object]) -> Callable[..., object]:
    for option in reversed(_INBOX):
        function = option(function)
    return function


@click.command()
@click.argument("name")
@_MESSAGES
@click.option("--add", is_flag=True, help="Add to the profile that is there.")
@_inbox_options
@click.pass_obj
def profile(settings: Settings, name: str, messages: tuple[Path, ...], add: bool, inbox: bool, since: int,
            limit: int) -> None:
    """Write profile.json and profile.tsv of the hospital NAME from messages: what it uses, how often, with which codes.

    Without messages, print the profile that is there. It holds no patient data.
    """
    from gateway.onboarding import profile as profiles
    from gateway.onboarding import scaffold
    from gateway.onboarding.explain import field_name

    folder = folder_named(settings, name)
    path = folder / scaffold.PROFILE
    if not messages and not inbox:
        for line in profiles.to_tsv(_kept(path, name), field_name):
            click.echo(line)
        return
    made = _profile(settings, folder, messages, inbox, since, limit)
    if add:
        made = profiles.merged(_kept(path, name), made)
    files: list[Path] = []
    scaffold.keep_profile(files, folder, made)
    for file in files:
        click.echo(file)
    click.echo(f"{made.messages} messages", err=True)


@click.command()
@click.argument("name", required=False)
@_MESSAGES
@click.option("--all", "everything", is_flag=True, help="Also what may be chance: new things seen a few times.")
@_inbox_options
@click.pass_obj
def drift(settings: Settings, name: str | None, messages: tuple[Path, ...], everything: bool, inbox: bool, since: int,
          limit: int) -> int:
    """Tell how messages differ from the profile of the hospital NAME; exit status 1 when they do.

    Without NAME, what arrived (--inbox) is held against every hospital's profile: a line for the nightly jobs.
    What chance explains (a rare field that the samples did not hold) is counted, and told with --all. When a change is
    known and right, `huren adapter profile NAME …` makes the profile anew; with --add it learns rare things.
    """
    if bool(messages) == inbox:
        raise click.UsageError("name messages, or --inbox for what arrived")
    if name is not None:
        folder = folder_named(settings, name)
        return _told_drift(_kept(folder / _profile_name(), name),
                           _profile(settings, folder, messages, inbox, since, limit), everything)
    drifted = 0
    for folder in (f for parent in settings.adapter_folders for f in hospital_folders(parent)):
        if (folder / _profile_name()).exists():
            click.echo(f"{folder.name}:")
            try:
                now = _profile(settings, folder, (), inbox, since, limit)
            except GatewayError as error:
                if error.category is not Category.NOT_FOUND:
                    raise
                click.echo(error.message, err=True)
                continue
            drifted |= _told_drift(_kept(folder / _profile_name(), folder.name), now, everything)
    return drifted


def _told_drift(known: Profile, now: Profile, everything: bool) -> int:
    from gateway.onboarding.drift import drift as differences

    found = differences(known, now)
    certain = [d for d in found if d.certain]
    if told := found if everything else certain:
        table(("change", "where", "what"), [(d.kind if d.certain else f"{d.kind}?", d.where, d.sentence) for d in told])
    click.echo(f"{len(certain)} change(s) in {now.messages} messages against a profile of {known.messages}"
               + (f"; {len(found) - len(certain)} that may be chance" if len(found) > len(certain) else ""), err=True)
    return 1 if certain else 0


def _profile_name() -> str:
    from gateway.onboarding.scaffold import PROFILE

    return PROFILE


def _kept(path: Path, name: str) -> Profile:
    from gateway.onboarding.profile import from_json

    if not path.exists():
        raise GatewayError(Category.NOT_FOUND, f"{path.parent.name} has no {path.name}; make it with `huren adapter "
                           f"profile {name} MESSAGES…`", path.name)
    return from_json(path.read_bytes())


def _profile(settings: Settings, folder: Path, messages: tuple[Path, ...], inbox: bool, since: int,
             limit: int) -> Profile:
    """The profile of messages in files, or of what arrived."""
    from gateway.onboarding.profile import Profiler

    adapter, profiler = load(folder), Profiler()
    with _progress() as tell:
        if messages:
            for raw, message in _parsed(adapter, _read(list(messages), tell)):
                profiler.add(raw, message)
        if inbox:
            oldest = datetime.now(UTC) - timedelta(days=since)
            with opened(settings) as store:
                for raw, message in arrived(store, adapter, int(oldest.timestamp() * 1e6), limit):
                    tell(f"{profiler.profile.messages} messages")
                    profiler.add(raw, message)
    if not profiler.profile.messages:
        raise GatewayError(Category.NOT_FOUND, f"there is no message of {adapter.name} that can be read"
                           + (f" in the last {since} days" if inbox else ""), "MESSAGES")
    return profiler.profile


def arrived(store: Store, adapter: Adapter, since: int, limit: int,
            look: int = 1_000_000) -> Iterator[tuple[bytes, hl7v2.Message]]:
    """What this hospital sent and can be read, newest first, from µs ``since`` on; ``look``: at so many rows."""
    before = None
    while limit and look > 0 and (rows := store.inbox(limit=500, before=before)):
        look -= len(rows)
        for row in rows:
            if row.received < since or not limit:
                return
            if row.protocol != "hl7v2" or not _is_of(adapter, row.institution, row.facility) \
                    or (shown := store.inbox_show(row.id)) is None:
                continue
            with suppress(GatewayError):
                yield shown.raw, hl7v2.parse(shown.raw, adapter.source.charset)
                limit -= 1
        before = rows[-1].id


def _is_of(adapter: Adapter, institution: str, facility: str) -> bool:
    own = adapter.source.institution
    if adapter.per_facility:
        return institution.startswith(f"{own}-")
    return institution == own or not institution and facility in adapter.sending_facility
