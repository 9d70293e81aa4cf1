"""What several commands open: the store, and the pipeline over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from gateway.config import Settings

if TYPE_CHECKING:
    from gateway.store import Store


@contextmanager
def opened(settings: Settings, *, migrate: bool = False, reindex: bool = False) -> Iterator[Store]:
    """The store, closed again at the end; INVALID says `huren migrate` where the schema is another one."""
    from gateway.store import open_store

    store = open_store(settings, migrate, reindex=reindex)
    try:
        yield store
    finally:
        store.close()


def local_time(settings: Settings, microseconds: int | None) -> str:
    """Microseconds since the epoch as people here read them."""
    if microseconds is None:
        return "-"
    return datetime.fromtimestamp(microseconds / 1e6, ZoneInfo(settings.timezone)).strftime("%Y-%m-%d %H:%M:%S")


def table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table for people on a terminal, tab-separated lines with a header for programs."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        for row in (columns, *rows):
            print("\t".join(field.replace("\t", " ").replace("\n", " ") for field in row))
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(field.replace("[", "\\[") for field in row))
    console.print(shown)
