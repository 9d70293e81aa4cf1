"""`huren migrate` and `huren reindex`."""

from __future__ import annotations

import click

from gateway.commands.opening import opened
from gateway.config import Settings


@click.command()
@click.pass_obj
def migrate(settings: Settings) -> None:
    """Bring the database schema up to date; safe to run again, and beside running gateways of the same version."""
    from gateway.recognition.loading import keep_shipped

    with opened(settings, migrate=True) as store:
        keep_shipped(store)
    click.echo("the schema is up to date")


@click.command()
@click.pass_obj
def reindex(settings: Settings) -> None:
    """Rebuild the search index from the stored resources; what is stored does not change."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with opened(settings, reindex=True) as store, bar:
        task = bar.add_task("reindex", total=None)
        done = store.reindex(lambda finished, total: bar.update(task, completed=finished, total=total))
    click.echo(f"{done} resources indexed anew")
