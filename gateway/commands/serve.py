"""`huren serve`: every edge, or one of them, under the supervisor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import click

from gateway import supervisor
from gateway.config import Settings


@click.command()
@click.argument("edge", required=False, type=click.Choice(supervisor.EDGES))
@click.option("--demo", is_flag=True, help="Loopback only, no login, demo hospitals whose examples are sent at once.")
@click.pass_obj
def serve(settings: Settings, edge: str | None, demo: bool) -> int:
    """Run HTTP, MLLP and DIMSE (or the one EDGE) until SIGTERM or Ctrl-C; both let running work finish first."""
    then: Callable[[Settings], None] | None = None
    if demo:
        if edge:
            raise click.UsageError("--demo runs every edge; leave the name of the edge out")
        settings = replace(settings, demo=True)
        supervisor.require_loopback(settings)
        from gateway.commands.demo import send_examples

        then = send_examples
    return supervisor.Supervisor(settings, (edge,) if edge else supervisor.EDGES, then).run()
