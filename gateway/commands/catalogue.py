"""`huren catalogue`: versions of the catalogue of recognition: load one, compare two, show what one says."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.adapter import load_all
from gateway.caller import GATEWAY
from gateway.commands.opening import opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.fhir import check, json
from gateway.fhir.outcome import InvalidResource, Issue
from gateway.recognition import library
from gateway.recognition.difference import about, differences, rows
from gateway.recognition.loading import Loading
from gateway.recognition.rules import RuleSet
from gateway.recognition.tables import HEAD, TABLES, Faults, Head, read_head, ruleset_from_tables
from gateway.recognition.versions import Rulebook
from gateway.source import Resource
from gateway.store.model import Access, Put, Unit

if TYPE_CHECKING:
    from gateway.store import Store


@click.group()
def catalogue() -> None:
    """Versions of the catalogue of recognition."""


@catalogue.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="FOLDER|FILE…")
@click.option("--version", "name", metavar="NAME", help="The version's name, in place of catalogue.toml's.")
@click.option("--effective", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="The day on which it begins.")
@click.option("--base", metavar="NAME", help="The version whose tables are taken over where none is given.")
@click.option("--dry-run", is_flag=True, help="Check everything, write nothing.")
@click.pass_obj
def load(settings: Settings, paths: tuple[Path, ...], name: str | None, effective: datetime | None, base: str | None,
         dry_run: bool) -> int:
    """Load a version: a folder of tables, the tables themselves, or a FHIR Library as JSON."""
    now = time.time_ns() // 1000
    with opened(settings) as store:
        book = Rulebook(settings.timezone, load_all(settings.adapter_folders).all, store)
        loading = Loading(book, store, lambda: {a.source.institution for a in load_all(settings.adapter_folders).all})
        try:
            resource = _library(paths, name, effective.date() if effective else None, base)
            check.require_valid(resource)
            if dry_run:
                rules = loading.check(resource, now)
                outcome = "can be loaded"
            else:
                outcome = _write(store, loading, resource, now)
                rules = book.version(resource["version"])
        except InvalidResource as refused:
            return _refused(refused.issues)
    click.echo(f"version {rules.version} {outcome}: {_sizes(rules)}; it takes effect on {rules.effective}")
    return 0


def _write(store: Store, loading: Loading, resource: Resource, now: int) -> str:
    put = Put(resource)
    more = loading.complete([put], GATEWAY, now)
    access = Access("huren catalogue", None, "update", f"Library/{resource['id']}", 200)
    written = store.write(Unit([put, *more], access=access), GATEWAY)
    loading.refresh()
    return {"created": "is loaded", "updated": "is loaded anew", "unchanged": "was loaded before"}[written[0].outcome]


def _refused(issues: Iterable[Issue]) -> int:
    for issue in issues:
        click.echo(f"{issue.where}: {issue.message}" if issue.where else issue.message, err=True)
    return 1


def _library(paths: tuple[Path, ...], name: str | None, effective: date | None, base: str | None) -> Resource:
    """The Library of what was given; its tables are not checked here."""
    if len(paths) == 1 and paths[0].suffix == ".json":
        given = json.loads(paths[0].read_bytes())
        if not library.is_catalogue(given):
            raise GatewayError(Category.INVALID, f"{paths[0].name} is no version of the catalogue; see "
                                                 "gateway/recognition/README.md", paths[0].name)
        if name or base or effective:
            raise click.UsageError("--version, --base and --effective go with tables; a Library says them itself")
        return given
    files = _files(paths)
    return library.library(_head(files.get(HEAD), {"version": name, "effective": effective, "base": base}), files)


def _files(paths: tuple[Path, ...]) -> dict[str, bytes]:
    """The tables of a folder, or those that were named; other files of a folder are left alone."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = tuple(sorted(path for path in paths[0].iterdir() if path.suffix == ".tsv" or path.name == HEAD))
    for path in paths:
        if path.name not in TABLES and path.name != HEAD:
            raise GatewayError(Category.INVALID, f"{path.name} is no table of the catalogue; there are {HEAD}, "
                               + ", ".join(TABLES), path.name)
    return {path.name: path.read_bytes() for path in paths}


def _head(raw: bytes | None, instead: dict[str, object]) -> Head:
    """``catalogue.toml`` with what the options say in its place; without the file, the options alone."""
    faults = Faults()
    head = read_head(raw, faults, {key: value for key, value in instead.items() if value is not None})
    faults.raise_any()
    assert head is not None  # else there is a fault
    return head


def _sizes(rules: RuleSet) -> str:
    parts = {"items": len(rules.catalogue.items), "panels": len(rules.catalogue.panels),
             "coverage edges": len(rules.catalogue.edges), "qualifications": len(rules.qualifications),
             "prices": len(rules.prices)}
    return ", ".join(f"{count} {name}" for name, count in parts.items())


# ---------------------------------------------------------------------------------------------------- diff, show

@catalogue.command()
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@click.pass_obj
def diff(settings: Settings, old: str, new: str) -> int:
    """What changes from A to B: names of versions, or folders of tables. Exit status 1 where something does."""
    with opened(settings) as store:
        book = Rulebook(settings.timezone, (), store)
        try:
            found = differences(_named(book, old), _named(book, new))
        except InvalidResource as refused:
            return _refused(refused.issues)
    table(("table", "change", "key", "name", "what"), found)
    return 1 if found else 0


def _named(book: Rulebook, name: str) -> RuleSet:
    book.refresh()
    folder = Path(name)
    if not folder.is_dir():
        return book.version(name)
    files = _files((folder,))
    head = _head(files[HEAD], {}) if HEAD in files else Head("folder", date.max)
    return ruleset_from_tables(files, [rules for rules in book.plain() if rules.version != head.version], head)


@catalogue.command()
@click.argument("version", required=False)
@click.option("--item", metavar="CODE", help="All that the version says of an item or panel.")
@click.option("--tables", "folder", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Write its tables there, to edit them and load them as another version.")
@click.pass_obj
def show(settings: Settings, version: str | None, item: str | None, folder: Path | None) -> None:
    """The versions; one version's tables; or one item, in the version that holds today."""
    now = time.time_ns() // 1000
    with opened(settings) as store:
        book = Rulebook(settings.timezone, load_all(settings.adapter_folders).all, store)
        holding = book.at(now)
        versions = book.versions()
        rules = book.version(version) if version else holding
        files = book.tables(rules.version) if folder else {}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        for name, raw in files.items():
            (folder / name).write_bytes(raw)
        click.echo(f"{len(files)} tables of version {rules.version} are in {folder}; give the new version its own "
                   f"{HEAD}, or --version and --effective")
    elif item:
        said = about(rules, item)
        if not said:
            raise GatewayError(Category.NOT_FOUND, f"version {rules.version} has no item or panel {item}", item)
        table(("what", "of version " + rules.version), said)
    elif version:
        table(("table", "rows"), _counts(rules))
    else:
        table(("version", "takes effect", "", "items", "panels", "coverage", "title"),
              [(r.version, r.effective.isoformat(), "holds" if r.version == holding.version else "",
                str(len(r.catalogue.items)), str(len(r.catalogue.panels)), str(len(r.catalogue.edges)), r.title)
               for r in versions])


def _counts(rules: RuleSet) -> list[tuple[str, str]]:
    return [("version", rules.version), ("takes effect", rules.effective.isoformat()), ("title", rules.title),
            *((name, str(len(held))) for name, held in rows(rules).items())]
