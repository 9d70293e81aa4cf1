"""`huren inbox`: what arrived, what was quarantined and why, and running it again after a fix."""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from gateway.commands import account as account_command
from gateway.commands.opening import local_time, opened, table
from gateway.config import Settings
from gateway.errors import Category, GatewayError
from gateway.hl7v2.accounting import Account
from gateway.store.model import InboxRow, Receipt

if TYPE_CHECKING:
    from gateway.store import Store

#: The account of a long message makes and drops a million objects, and nothing else runs in this process: looked for
#: this rarely, garbage costs little memory, and the account of 300 results takes two thirds of the time.
_GARBAGE = 200_000
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
@click.option("--facts", is_flag=True, help="Only what is known of the message, not what became of its fields.")
@click.option("--fields", is_flag=True, help="Each field of each segment by itself, and the resources' references.")
@click.option("--values", is_flag=True, help="What was sent beside what became of it: patient data.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_obj
def show(settings: Settings, id: int, raw: bool, facts: bool, fields: bool, values: bool, as_json: bool) -> None:
    """What is known of one message, and what becomes of each of its fields."""
    with opened(settings) as store:
        row = store.inbox_show(id)
    if row is None:
        raise GatewayError(Category.NOT_FOUND, f"there is no message {id}; `huren inbox list` shows what there is")
    if raw:
        sys.stdout.buffer.write(row.raw)
        return
    known = _facts(settings, row)
    account, why = (None, "") if facts else _account(settings, row)
    if as_json:
        shown = account_command.as_json(account, values) if account else {}
        click.echo(json.dumps({**known, **shown, **({"note": why} if why else {})}, ensure_ascii=False, indent=2))
        return
    for name, value in known.items():
        click.echo(f"{name + ':':<13} {value}")
    if why:
        click.echo(f"\n{why}")
    if account is not None:
        click.echo()
        refused = row.receipt.where if row.receipt is not None and row.receipt.category else ""
        account_command.show(account, refused, fields, values)


def _facts(settings: Settings, row: InboxRow) -> dict[str, Any]:
    receipt = row.receipt or Receipt(row.id)
    known = {"id": row.id, "received": local_time(settings, row.received), "from": row.peer, "facility": row.facility,
             "institution": row.institution, "type": row.message_type, "control id": row.control_id,
             "bytes": len(row.raw), "status": row.status, "settled": local_time(settings, row.settled),
             "attempts": row.attempts, "resources": receipt.resources, "category": receipt.category,
             "place": receipt.where, "sentence": receipt.message, "remark": receipt.remark,
             "remark at": receipt.remark_where}
    return {name: value for name, value in known.items() if value not in (None, "")}


def _account(settings: Settings, row: InboxRow) -> tuple[Account | None, str]:
    """What becomes of each value, with the hospital's folder as it is now; None and a sentence where nothing tells."""
    from gateway import hl7v2
    from gateway.adapter import load_all

    gc.set_threshold(_GARBAGE)
    try:
        header = hl7v2.peek(row.raw)
        adapters = load_all(settings.adapter_folders, settings.default_adapter)
        adapter = adapters.for_hl7(header.sending_facility, header.sending_application)
        account = adapter.account_hl7(row.raw, header.sending_facility)
    except GatewayError as error:
        return None, f"its fields are not told: {error.where}: {error.message}"
    if row.status == "quarantined" and account.refusal is None:
        return account, "It was refused, but not for its content as the hospital's folder is now: this is what would " \
                        "become of it."
    if row.status == "stored" and account.refusal is not None:
        return account, "It is stored, but would be refused as the hospital's folder is now."
    return account, ""


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
