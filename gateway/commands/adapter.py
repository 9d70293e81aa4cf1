"""`huren adapter`: scaffold a hospital folder, run the conformance rules, rewrite its expected files."""

from __future__ import annotations

from pathlib import Path

import click

from gateway import conformance
from gateway.adapter import hospital_folders, load, load_all
from gateway.commands import onboarding
from gateway.config import Settings
from gateway.errors import Category, GatewayError

_PATHS = click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]…")


@click.group()
def adapter() -> None:
    """Scaffold, check and record hospital folders; adapters/README.md tells how to add a hospital in an hour."""


for _command in (onboarding.new, onboarding.codes, onboarding.keep, onboarding.profile, onboarding.drift):
    adapter.add_command(_command)


@adapter.command()
@_PATHS
@click.option("--messages", type=click.Path(exists=True, path_type=Path), multiple=True,
              help="In place of the rules: explain which of these messages would be refused, and why.")
@click.pass_obj
def check(settings: Settings, paths: tuple[Path, ...], messages: tuple[Path, ...]) -> int:
    """Run every rule over the hospital folders in PATH (all of HUREN_ADAPTERS when none is named).

    Each refused example is explained: our own sentence, what hl7apy finds by the standard, and what to do next.
    """
    parents = _parents(settings, paths)
    if messages:
        return _check_messages(settings, parents, list(messages))
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
        if not any(f.rule == "loads" for f in findings):
            _explain_examples(folder)
    together = conformance.check_together(parents)
    for finding in together:
        click.echo(f"{finding.rule}: {finding.where}: {finding.message}")
    return 1 if broken or together else 0


def _parents(settings: Settings, paths: tuple[Path, ...]) -> list[Path]:
    """The folders given, by path or a hospital's name; all of HUREN_ADAPTERS when none is."""
    return [p if p.is_dir() else onboarding.folder_named(settings, str(p)) for p in paths] or settings.adapter_folders


def _explain_examples(folder: Path) -> None:
    from gateway.onboarding.explain import explain

    hospital = load(folder)
    for example in conformance.examples(folder):
        if example.path.suffix == ".hl7" and (why := explain(hospital, example.path.read_bytes())):
            for line in [f"{example.path.name}: {line}" if not at else line for at, line in enumerate(why.lines())]:
                click.echo(f"  {line}")


def _check_messages(settings: Settings, parents: list[Path], paths: list[Path]) -> int:
    """Explain each kind of refusal once, with how many messages it stops and where the first ones are."""
    from gateway.onboarding import explain, samples

    folders = folders_of(parents)
    names = [folder.name for folder in folders]
    alone = len(names) == 1 and load(folders[0]).per_facility  # `generic` by itself: it takes whatever sender
    hospitals = load_all(parents, names[0] if alone else settings.default_adapter if settings.default_adapter in names
                         else "")
    found = samples.read(paths)
    refused: dict[tuple[str, str, str], list[samples.Sample]] = {}
    for sample in found.messages:
        if error := explain.refusal(hospitals, sample.raw):
            refused.setdefault((error.category.value, error.where, error.message), []).append(sample)
    for what, count in found.left.most_common():
        click.echo(f"left aside: {count} × {what}")
    stopped = sum(map(len, refused.values()))
    click.echo(f"{len(found.messages) - stopped} of {len(found.messages)} messages are accepted")
    for stopped_here in sorted(refused.values(), key=len, reverse=True):
        why = explain.explain_any(hospitals, stopped_here[0].raw)
        places = ", ".join(s.where for s in stopped_here[:3]) + (" …" if len(stopped_here) > 3 else "")
        for at, line in enumerate(why.lines() if why else ()):
            click.echo(line if at else f"{len(stopped_here)} × {line}   ({places})")
        if why and (values := explain.values_at(hospitals, [s.raw for s in stopped_here], why.where)):
            click.echo("  values:  " + ", ".join(f"'{v}' {n} times" for v, n in values.most_common(10)))
    return 1 if refused else 0


@adapter.command()
@_PATHS
@click.pass_obj
def golden(settings: Settings, paths: tuple[Path, ...]) -> None:
    """Rewrite the expected files of the hospital folders in PATH from what their examples become now."""
    changed = [path for folder in folders_of(_parents(settings, paths))
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
    from gateway.onboarding.menu import explanation, menu_rows, table
    from gateway.onboarding.suggest import suggest as candidates_of

    try:
        rows = menu_rows(menu.read_text(encoding="utf-8"), menu.name)
    except UnicodeDecodeError as error:
        raise GatewayError(Category.MALFORMED, "not UTF-8; convert the menu first, such as with "
                           "`iconv -f gb18030 -t utf-8`", menu.name) from error
    found = candidates_of(rows)
    for line in (explanation if explain else table)(rows, found):
        click.echo(line)


def folders_of(paths: list[Path]) -> list[Path]:
    """The hospital folders in folders; INVALID when there is none."""
    found = [folder for path in paths for folder in hospital_folders(path)]
    if not found:
        raise GatewayError(Category.INVALID, "there is no folder with a manifest.toml in "
                           + ", ".join(str(p) for p in paths) + "; `huren adapter new NAME` makes one")
    return found
