"""`huren inbox`: what arrived, what was quarantined and why, and running it again after a fix."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from gateway.commands.opening import local_time, opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.store.model import Receipt

if TYPE_CHECKING:
    from gateway.store import Store

_STATUSES = ("received", "stored", "quarantined")


@click.group()
def inbox() -> None:
    """Show what arrived, and run it again."""


@inbox.command("list")
@click.option("--status", type=click.Choice(_STATUSES), help="Only these; all when it is left out.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Newest so many.")
@click.option("--before", type=int, metavar="ID", help="Older than this one: for the next page.")
@click.pass_obj
def list_(settings: Settings, status: str | None, limit: int, before: int | None) -> None:
    """The newest messages first; no patient data."""
    with opened(settings) as store:
        found = store.inbox(status=status, limit=limit, before=before)
    rows = []
    for row in found:
        receipt = row.receipt or Receipt(row.id)
        rows.append((str(row.id), local_time(settings, row.received), row.status,
                     row.institution or row.facility or "-", row.message_type or "-", row.control_id or "-",
                     receipt.category or "-", receipt.where or "-", receipt.message or receipt.remark))
    table(("id", "received", "status", "institution", "type", "control id", "category", "place", "sentence"), rows)


@inbox.command()
@click.argument("id", type=int)
@click.option("--raw", is_flag=True, help="The message itself, byte by byte: it holds patient data.")
@click.pass_obj
def show(settings: Settings, id: int, raw: bool) -> None:
    """What is known of one message."""
    with opened(settings) as store:
        row = store.inbox_show(id)
    if row is None:
        raise GatewayError(Category.NOT_FOUND, f"there is no message {id}; `huren inbox list` shows what there is")
    if raw:
        sys.stdout.buffer.write(row.raw)
        return
    receipt = row.receipt or Receipt(row.id)
    facts = {"id": row.id, "received": local_time(settings, row.received), "from": row.peer, "facility": row.facility,
             "institution": row.institution, "type": row.message_type, "control id": row.control_id,
             "bytes": len(row.raw), "status": row.status, "settled": local_time(settings, row.settled),
             "attempts": row.attempts, "resources": receipt.resources, "category": receipt.category,
             "place": receipt.where, "sentence": receipt.message, "remark": receipt.remark,
             "remark at": receipt.remark_where}
    for name, value in facts.items():
        if value not in (None, ""):
            click.echo(f"{name + ':':<13} {value}")


@inbox.command()
@click.argument("ids", nargs=-1, type=int, metavar="[ID]…")
@click.option("--all", "everything", is_flag=True, help="Everything that is in quarantine.")
@click.pass_obj
def replay(settings: Settings, ids: tuple[int, ...], everything: bool) -> int:
    """Run messages again, after a mapping, a manifest or the program was mended. Stored ones change nothing."""
    if bool(ids) == everything:
        raise click.UsageError("name messages by ID, or --all for everything in quarantine")
    from gateway.pipeline import Pipeline

    refused = 0
    with opened(settings) as store:
        pipeline = Pipeline(settings, store)
        for id in ids or _quarantined(store):
            receipt = pipeline.replay(id)
            if receipt.category is None:
                click.echo(f"{id}: stored, {receipt.resources} resources")
            else:
                refused += 1
                click.echo(f"{id}: {receipt.category} {receipt.where}: {receipt.message}")
    return 1 if refused else 0


def _quarantined(store: Store) -> list[int]:
    """Oldest first, so that a correction follows what it corrects."""
    ids: list[int] = []
    before = None
    while rows := store.inbox(status="quarantined", limit=1000, before=before):
        ids += [row.id for row in rows]
        before = ids[-1]
    return ids[::-1]
