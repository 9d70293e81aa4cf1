"""`huren client`: who may use the HTTP paths, and what they may see."""

from __future__ import annotations

import click

from gateway.caller import check_scope
from gateway.commands.opening import local_time, opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError


@click.group()
def client() -> None:
    """Who may use the HTTP paths."""


@client.command()
@click.argument("name")
@click.option("--institution", metavar="ID", help="The hospital it acts for; institution/ scopes see only that one's.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", show_default=True, default=("system/*.rs",),
              help="system/Type.cruds, system/*.rs, institution/*.cruds …; may be given several times.")
@click.pass_obj
def add(settings: Settings, name: str, institution: str | None, scopes: tuple[str, ...]) -> None:
    """Register NAME and print its bearer token, once: only a hash is kept."""
    wanted = tuple(scope for text in scopes for scope in text.split())
    for scope in wanted:
        check_scope(scope)
    if institution is None and any(scope.startswith("institution/") for scope in wanted):
        raise click.UsageError("institution/ scopes need --institution ID")
    with opened(settings) as store:
        token = store.client_add(name, institution, wanted)
    click.echo(token)
    click.echo("Keep this token: it is not shown again. Send it as 'Authorization: Bearer …'.", err=True)


@client.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """Every client, also revoked ones."""
    with opened(settings) as store:
        rows = [(c.name, c.institution or "-", " ".join(c.scopes), local_time(settings, c.created),
                 local_time(settings, c.revoked)) for c in store.client_list()]
    table(("name", "institution", "scopes", "added", "revoked"), rows)


@client.command()
@click.argument("name")
@click.pass_obj
def revoke(settings: Settings, name: str) -> None:
    """NAME's token is refused from now on."""
    with opened(settings) as store:
        known = store.client_revoke(name)
    if not known:
        raise GatewayError(Category.NOT_FOUND, f"there is no client '{name}'; `huren client list` shows them")
    click.echo(f"{name} is revoked")
