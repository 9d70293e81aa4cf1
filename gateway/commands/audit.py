"""`huren audit`: whether what was decided is as it was written."""

from __future__ import annotations

import re

import click

from gateway.commands.opening import opened
from gateway.config import Settings

_EXPECT = re.compile(r"([0-9]{1,18}):([0-9a-fA-F]{64})", re.ASCII)


@click.group()
def audit() -> None:
    """Check what was kept of decisions."""


@audit.command()
@click.option("--expect", metavar="SEQ:HASH", help="A head that was noted before: the chain must still hold it.")
@click.pass_obj
def verify(settings: Settings, expect: str | None) -> int:
    """Walk over every event and order line; print the chain's head, and what is not as it was written.

    Note the head elsewhere and give it to --expect later: who can write the whole database can write the chain anew,
    but cannot make it hold a head that was noted before. Exit status 1 when anything is found.
    """
    from rich.console import Console
    from rich.progress import Progress

    noted = None
    if expect is not None:
        found = _EXPECT.fullmatch(expect.strip())
        if found is None:
            raise click.BadParameter("write it as the command prints it: number, colon, 64 hexadecimal digits",
                                     param_hint="--expect")
        noted = int(found[1]), found[2]
    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with opened(settings) as store, bar:
        task = bar.add_task("verify", total=None)
        verified = store.verify_events(lambda done, total: bar.update(task, completed=done, total=total), noted)
    for problem in verified.problems:
        where = " ".join(part for part in (f"event {problem.seq}" if problem.seq else "",
                                           f"line {problem.line}" if problem.line else "") if part)
        click.echo(f"{where or 'chain'}: {problem.sentence}")
    click.echo(f"{verified.events} events, {verified.lines} order lines, {len(verified.problems)} problems")
    click.echo(f"head {verified.head_seq}:{verified.head_hash}")
    return 1 if verified.problems else 0
