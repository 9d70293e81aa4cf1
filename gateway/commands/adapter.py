"""`huren adapter`: scaffold a hospital folder, run the conformance rules, rewrite its expected files."""

from __future__ import annotations

from pathlib import Path

import click

from gateway import conformance
from gateway.adapter import hospital_folders
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.onboarding import suggest as suggestions
from gateway.onboarding.menu import explanation, menu_rows, table

_PATHS = click.argument("paths", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path),
                        metavar="[PATH]…")


@click.group()
def adapter() -> None:
    """Scaffold, check and record hospital folders; adapters/README.md tells how to add a hospital in an hour."""


@adapter.command()
@click.argument("name")
@click.pass_obj
def new(settings: Settings, name: str) -> None:
    """Make the folder NAME: in the first folder of HUREN_ADAPTERS, or where NAME says when it is a path."""
    folder = Path(name) if "/" in name else settings.adapter_folders[0] / name
    for path in conformance.new(folder):
        click.echo(path)


@adapter.command()
@_PATHS
@click.pass_obj
def check(settings: Settings, paths: tuple[Path, ...]) -> int:
    """Run every rule over the hospital folders in PATH (all of HUREN_ADAPTERS when none is named)."""
    parents = list(paths) or settings.adapter_folders
    broken = 0
    for folder in folders_of(parents):
        findings = conformance.check(folder)
        failed = [f for f in findings if not f.exempt]
        broken += len(failed)
        click.echo(f"{folder.name}: {len(failed)} finding(s) open" if failed else
                   f"{folder.name}: keeps every rule" + (f" but {len(findings)} excused" if findings else ""))
        for finding in findings:
            excuse = f" (excused: {finding.exempt})" if finding.exempt else ""
            click.echo(f"  {finding.rule}: {finding.where}: {finding.message}{excuse}")
    together = conformance.check_together(parents)
    for finding in together:
        click.echo(f"{finding.rule}: {finding.where}: {finding.message}")
    return 1 if broken or together else 0


@adapter.command()
@_PATHS
@click.pass_obj
def golden(settings: Settings, paths: tuple[Path, ...]) -> None:
    """Rewrite the expected files of the hospital folders in PATH from what their examples become now."""
    changed = [path for folder in folders_of(list(paths) or settings.adapter_folders)
               for path in conformance.golden(folder)]
    for path in changed:
        click.echo(path)
    if changed:
        click.echo(f"{len(changed)} expected file(s) rewritten; read the difference before you keep them", err=True)


@adapter.command()
@click.argument("menu", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="MENU.tsv")
@click.option("--explain", is_flag=True, help="Say why, row by row, in place of the table.")
def suggest(menu: Path, explain: bool) -> None:
    """Print up to three items of the catalogue for each row of a menu, with a score between 0 and 1.

    MENU.tsv: columns local, display, unit and specimen, separated by tabs, with a header. A person approves; what is
    approved goes into codes.csv.
    """
    try:
        rows = menu_rows(menu.read_text(encoding="utf-8"), menu.name)
    except UnicodeDecodeError as error:
        raise GatewayError(Category.MALFORMED, "not UTF-8; convert the menu first, such as with "
                           "`iconv -f gb18030 -t utf-8`", menu.name) from error
    found = suggestions.suggest(rows)
    for line in (explanation if explain else table)(rows, found):
        click.echo(line)


def folders_of(paths: list[Path]) -> list[Path]:
    """The hospital folders in folders; INVALID when there is none."""
    found = [folder for path in paths for folder in hospital_folders(path)]
    if not found:
        raise GatewayError(Category.INVALID, "there is no folder with a manifest.toml in "
                           + ", ".join(str(p) for p in paths) + "; `huren adapter new NAME` makes one")
    return found
